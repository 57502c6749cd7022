"""Files of the shapes that teams have: whatever is merged into them, every other byte stays."""

import warnings
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import MantissaNoDotYAML1_1Warning

from hpo_service.cli.merge import Merged, Setting, merge
from hpo_service.cli.merge.places import effective
from hpo_service.cli.merge.scalars import says
from hpo_service.cli.merge.splice import key_parts
from hpo_service.cli.merge.tree import Node, read_trees
from hpo_service.core.export_groups import Group
from tests.exported import OTHER
from tests.merging import FILES
from tests.merging import settings as exported
from tests.yaml_spans import outside

#: format and key by file
SHAPES = {
    "adapter_config.json": ("peft", ""),
    "anchors-merge.yaml": ("helm", "big"),
    "anchors-scalar.yaml": ("trl", "job"),
    "axolotl-bom.yml": ("axolotl", ""),
    "axolotl-crlf.yml": ("axolotl", ""),
    "axolotl-qlora.yaml": ("axolotl", ""),
    "axolotl-sections.yaml": ("axolotl", ""),
    "comments-everywhere.yaml": ("trl", "job"),
    "compose.yaml": ("env", "services.train.environment"),
    "deepspeed.json": ("deepspeed", ""),
    "directives.yaml": ("trl", "job"),
    "empty.yaml": ("axolotl", ""),
    "flow-multiline.yaml": ("trl", "job"),
    "flow-open.yaml": ("trl", "job"),
    "folded-last.yaml": ("trl", "job"),
    "folded.yaml": ("trl", "job"),
    "gitlab-ci.yml": ("env", "train.variables"),
    "helm-four-spaces.yaml": ("helm", "trainer.tuning"),
    "helm-nested-two-four.yaml": ("helm", "trainer"),
    "helm-null-section.yaml": ("helm", "trainer"),
    "helm-values.yaml": ("helm", "training.best"),
    "hf-args-line.json": ("hf", "args"),
    "hf-args-tabs.json": ("hf", ""),
    "hf-args.json": ("hf", ""),
    "hydra-config.yaml": ("hydra", "lora"),
    "hydra-group.yaml": ("hydra", ""),
    "kubernetes-job.yaml": ("env", "spec.template.spec.containers.1.config"),
    "kubernetes-many.yaml": ("env", "data"),
    "kustomize-configmap.yaml": ("env", "data"),
    "llamafactory-sft.yaml": ("llamafactory", ""),
    "llamafactory-steps.yaml": ("llamafactory", ""),
    "only-comments.yaml": ("yaml", "best"),
    "quoted-keys.yaml": ("trl", "job"),
    "tagged.yaml": ("trl", "job"),
    "trailing-blanks.yaml": ("trl", "job"),
    "trial.yaml": ("yaml", ""),
    "trl-block-list.yaml": ("trl", ""),
    "trl-sft.yaml": ("trl", ""),
    "unicode.yaml": ("hydra", "模型"),
    "workflow.yml": ("env", "jobs.train.env"),
    "zero-offset.yaml": ("trl", "jobs.1"),
}
ORIGIN = ("Trial 4 of study s: eval_loss 2.0", "Promotion bot@1 by me")

learned = st.fixed_dictionaries(
    {},
    optional={
        "learning_rate": st.floats(1e-7, 1e-1, allow_nan=False),
        "lora_r": st.sampled_from([1, 4, 8, 16, 64, 1024]),
        "lora_alpha": st.sampled_from([8.0, 16.0, 32.0, 128.0]),
        "lora_dropout": st.sampled_from([0.0, 0.05, 0.123456]),
        "target_modules": st.sampled_from(["all-linear", "attention", "q_proj", "q_proj,v_proj", "a,b,c,d.e"]),
        "use_rslora": st.booleans(),
        "use_dora": st.booleans(),
        "init_lora_weights": st.sampled_from(["default", "pissa", "olora"]),
        "neftune_noise_alpha": st.sampled_from([0.0, 5.0]),
        "optimizer": st.sampled_from(["adamw", "paged_adamw_8bit"]),
        "lr_scheduler": st.sampled_from(["cosine", "linear", "constant", "wsd"]),
        "warmup_ratio": st.sampled_from([0.0, 0.03, 0.5]),
        "weight_decay": st.floats(0, 1),
        "epochs": st.sampled_from([0.5, 1.0, 3.0]),
        "adam_epsilon": st.sampled_from([1e-8, 1e-6]),
    },
)


def load(name: str) -> str:
    return (FILES / name).read_bytes().decode()


def test_every_file_has_its_format() -> None:
    assert sorted(SHAPES) == sorted(path.name for path in FILES.iterdir() if path.name[0] != ".")
    assert len(SHAPES) >= 30


def test_the_check_sees_a_byte() -> None:
    base = load("axolotl-sections.yaml")
    merged = merge(base, "", exported("axolotl"), (), "f").text
    paths: set[tuple[str, ...]] = {("learning_rate",), ("lora_r",)}
    for other in (merged.replace("# fits", "# Fits"), merged.replace("type: alpaca  ", "type: alpaca "), merged + "\n"):
        assert len(set(outside(merged, other, paths, 0))) == 2
    assert len(set(outside(merged, merged.replace("lora_r: 16", "lora_r: 7"), paths, 0))) == 1


@pytest.mark.parametrize("name", SHAPES)
@settings(max_examples=4, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(parameters=learned, everything=st.booleans(), origin=st.booleans())
def test_only_the_values_change(name: str, parameters: dict[str, Any], everything: bool, origin: bool) -> None:
    format, key = SHAPES[name]
    values = exported(format, *(Group if everything else ()), **parameters)
    base, comments = load(name), ORIGIN if origin else ()
    merged = merge(base, key, values, comments, name)
    assert merge(merged.text, key, values, comments, name).text == merged.text
    require_only_changes(base, merged, values, key_parts(key))
    require_document(base, merged, values, key_parts(key))


@pytest.mark.parametrize("name", SHAPES)
def test_the_same_file_takes_other_values_and_takes_them_back(name: str) -> None:
    """What a merge replaced, the next one replaces in the same places."""
    format, key = SHAPES[name]
    some, others = (
        exported(format, learning_rate=3.21e-5, lora_r=4, weight_decay=0.5),
        exported(format, learning_rate=7.77e-3, lora_r=5, weight_decay=0.25),
    )
    first = merge(load(name), key, some, ORIGIN, name).text
    second = merge(first, key, others, ORIGIN, name).text
    assert merge(second, key, some, ORIGIN, name).text == first


@pytest.mark.parametrize("format", ["axolotl", "trl", "helm"])
@pytest.mark.parametrize("name", [name for name in SHAPES if not SHAPES[name][1] and name != "axolotl-crlf.yml"])
def test_any_format_goes_into_any_file(name: str, format: str) -> None:
    base = load(name)
    for changes in ({}, OTHER):
        values = exported(format, *Group, **changes)
        require_only_changes(base, merge(base, "", values, (), name), values, [])


def require_only_changes(base: str, merged: Merged, values: list[Setting], key: list[str]) -> None:
    """Every byte outside of the values that were written is the same, by another reader's marks."""
    written = {one.name for one in merged.changes}
    paths = {(*key, *one.path) for one in values if one.name in written}
    trees = read_trees(merged.text)
    (document,) = [number for number, tree in enumerate(trees) if effective(tree, key) is not None]
    before, after = outside(base, merged.text, paths, document)
    assert before == after
    assert {one.name for one in merged.unwritten}.isdisjoint(written)


def require_document(base: str, merged: Merged, values: list[Setting], key: list[str]) -> None:
    """The document is the old one with the values that are said to be written, for both generations of readers."""
    refused = {one.name for one in merged.unwritten}
    written = {(*key, *one.path) for one in values if one.name not in refused}
    for version in ((1, 1), (1, 2)):
        before, after = plain(base, version), plain(merged.text, version)
        assert len(after) == max(1, len(before))
        for old, new in zip(before or [None], after, strict=True):
            assert (without(old, written) or {}) == without(new, written)
    (tree,) = [one for one in read_trees(merged.text) if effective(one, key) is not None]
    for one in values:
        found = effective(tree, [*key, *one.path])
        if one.name not in refused:
            assert (found is None and one.value is None) or (isinstance(found, Node) and says(found, one.value)), one


class Tagged(SafeConstructor):
    """Of what has an unknown tag only the text."""


Tagged.add_constructor(None, lambda _, node: f"{node.tag} {node.value}")


def plain(text: str, version: tuple[int, int]) -> list[Any]:
    """What a reader sees; of tags only the text."""
    yaml: Any = YAML(typ="safe", pure=True)
    yaml.version = version
    yaml.allow_duplicate_keys = True
    yaml.Constructor = Tagged
    warnings.simplefilter("ignore", MantissaNoDotYAML1_1Warning)
    return [one for one in yaml.load_all(text.replace("\t", " ")) if one is not None]


def without(value: Any, paths: set[tuple[str, ...]]) -> Any:
    """Without what is at the paths, and without mappings that hold nothing else; items of lists by their numbers."""
    below: dict[str, set[tuple[str, ...]]] = {}
    for path in paths:
        below.setdefault(path[0], set()).add(path[1:])
    if isinstance(value, list):
        return [without(one, below.get(str(at), set())) for at, one in enumerate(value)]
    if not isinstance(value, dict):
        return value
    left = {}
    for key, inner in value.items():
        inside = below.get(key, set())
        if () in inside:
            continue
        kept = without(inner, inside)
        if not inside or kept not in ({}, None):
            left[key] = kept
    return left
