"""Values spliced into files that people wrote: what changes, what stays, what is refused."""

import json

import pytest
import yaml

from hpo_service.cli.merge import Setting, merge
from hpo_service.core.errors import InvalidRequest
from hpo_service.core.export_groups import Group
from tests.merging import settings

MINE = """# our values
image: {repo: x}   # pinned
training:
    # who asks: team nlp
    gpus: 8  # all of them
    lora:
        parameters:
            lora_r: 64   # was 32 before May
            mine: yes
        notes: 'kept'
    steps:
      - fetch
      - train
other: [1, 2]
"""
LR = Setting(path=("learning_rate",), value=0.0002)
RANK = Setting(path=("lora_r",), value=8)
ORIGIN = ("Trial 4 of study s: eval_loss 2.0",)


def spliced(base: str, *values: Setting, key: str = "") -> str:
    return merge(base, key, values, (), "f.yaml").text


def test_what_people_wrote_stays_and_keys_that_lack_are_lines_among_their_siblings() -> None:
    """A file that begins with a flow mapping was re-indented as a whole."""
    values = [Setting(path=("parameters", one.path[0]), value=one.value) for one in (LR, RANK)]
    merged = merge(MINE, "training.lora", values, ORIGIN, "values.yaml")
    assert merged.text == MINE.replace("    lora:\n", f"    # hpo: {ORIGIN[0]}\n    lora:\n").replace(
        "lora_r: 64   # was 32 before May\n",
        "lora_r: 8   # was 32 before May\n            learning_rate: 0.0002\n",
    )
    assert [(one.name, one.before, one.after) for one in merged.changes] == [
        ("parameters.learning_rate", None, "0.0002"), ("parameters.lora_r", "64", "8"),
    ]  # fmt: skip


def test_the_origin_goes_above_the_key_and_is_replaced_next_time() -> None:
    first = merge(MINE, "training", [RANK], ("one", "two"), "values.yaml").text
    assert "# pinned\n# hpo: one\n# hpo: two\ntraining:\n" in first
    assert merge(first, "training", [RANK], ("one", "two"), "values.yaml").text == first
    assert merge(first, "training", [RANK], ("three",), "values.yaml").text == first.replace(
        "# hpo: one\n# hpo: two\n", "# hpo: three\n"
    )


def test_an_axolotl_file_keeps_its_rows_its_sections_and_its_order() -> None:
    """Its `datasets:` lost their type, and a section's comment vanished."""
    mine = (
        "base_model: meta-llama/Llama-3.1-8B\nload_in_8bit: true\n\n# --- rows ---\ndatasets:\n"
        "  - path: ours/chat\n    type: chat_template   # do not touch\n    split: train\n"
        "\n# --- adapter ---\nadapter: lora\nlora_r: 64\nlora_alpha: 16\n"
        "\n# --- training ---\nmicro_batch_size: 2\nlearning_rate: 1e-5\noutput_dir: ./out  # on the big disk\n"
    )
    found = merge(mine, "", settings("axolotl", lora_r=8, learning_rate=2e-5), (), "axolotl.yaml").text
    lines = found.splitlines()
    written = {"lora_r: 8", "lora_alpha: 32", "learning_rate: 0.00002"}
    gone = {"lora_r: 64", "lora_alpha: 16", "learning_rate: 1e-5"}
    assert [line for line in mine.splitlines() if line not in lines] == sorted(gone, key=mine.index)
    assert written <= set(lines)
    before, after = yaml.safe_load(mine), yaml.safe_load(found)
    assert {key: after[key] for key in before if key not in ("lora_r", "lora_alpha", "learning_rate")} == {
        key: before[key] for key in before if key not in ("lora_r", "lora_alpha", "learning_rate")
    }
    assert lines.index("lora_dropout: 0.0") < lines.index("# --- training ---")


@pytest.mark.parametrize(("old", "new"), [
    ("lr: 1e-3  # c\n", "lr: 0.0002  # c\n"),
    ("lr: 2e-4\n", "lr: 2e-4\n"),
    ("lr: '0.001'\n", "lr: '0.0002'\n"),
    ('lr: "auto"\n', "lr: 0.0002\n"),
    ("lr:\n", "lr: 0.0002\n"),
    ("lr:   # soon\n", "lr: 0.0002   # soon\n"),
    ("lr: ~\r\n", "lr: 0.0002\r\n"),
    ("'lr' : 1\n", "'lr' : 0.0002\n"),
    ("? lr\n: 1\n", "? lr\n: 0.0002\n"),
    ("\ufefflr: 1", "\ufefflr: 0.0002"),
    ("{lr: 1, b: [2]}", "{lr: 0.0002, b: [2]}"),
    ('{"b": 1}', '{"b": 1, "lr": 0.0002}'),
    ('{\n\t"b": 1\n}\n', '{\n\t"b": 1,\n\t"lr": 0.0002\n}\n'),
    ("b: &x 1\nlr: *x\n", "b: &x 1\nlr: 0.0002\n"),
    ("lr: &x 1\n", "lr: &x 0.0002\n"),
    ("b: &x {lr: 1}\nc: 1\n<<: *x\n", "b: &x {lr: 1}\nc: 1\n<<: *x\nlr: 0.0002\n"),
    ("b: &x {lr: 2.0e-4}\n<<: *x\n", "b: &x {lr: 2.0e-4}\n<<: *x\n"),
    ("a: 1\n---\nb: 1\n...\n", None),
    ("a: |\n  x\n", "a: |\n  x\nlr: 0.0002\n"),
    ("a: >-\n  x\n\n\n# end\n", "a: >-\n  x\n\n\nlr: 0.0002\n# end\n"),
    ("# only this", "# only this\nlr: 0.0002"),
    ("", "lr: 0.0002\n"),
    ("---\n", "---\nlr: 0.0002\n"),
    ("%YAML 1.1\n---\nlr: 1\n", "%YAML 1.1\n---\nlr: 0.0002\n"),
])  # fmt: skip
def test_a_number_finds_its_place(old: str, new: str | None) -> None:
    value = Setting(path=("lr",), value=0.0002)
    if new is None:
        with pytest.raises(InvalidRequest, match="holds 2 documents"):
            spliced(old, value)
        return
    assert spliced(old, value) == new
    assert spliced(new, value) == new


@pytest.mark.parametrize(("old", "value", "new"), [
    ("m: [a, b]  # c\n", ["x"], "m: [x]  # c\n"),
    ("m:\n- a\n- b\nn: 1\n", ["x", "y.z"], "m:\n- x\n- y.z\nn: 1\n"),
    ("m:\r\n    - 'a'\r\n    - b\r\n", ["x", "y"], "m:\r\n    - 'x'\r\n    - 'y'\r\n"),
    ("m:\n  - a\n  - b\n", ["a", "b"], "m:\n  - a\n  - b\n"),
    ("m:\n  - a\n  - b\nn: 1\n", "all-linear", "m: all-linear\nn: 1\n"),
    ("m: all\n", ["x"], "m: [x]\n"),
    ("m: 'all'\n", "it's", "m: 'it''s'\n"),
    ('m: "all"\n', "q,v", 'm: "q,v"\n'),
    ("m: all\n", "q_proj,v_proj", "m: q_proj,v_proj\n"),
    ("{m: all}\n", "q_proj,v_proj", '{m: "q_proj,v_proj"}\n'),
    ("m: x\n", "no", 'm: "no"\n'),
    ("m: x\n", True, "m: true\n"),
    ("m: yes\n", True, "m: yes\n"),
    ("m: 8\n", None, "m: null\n"),
    ("m: ~\n", None, "m: ~\n"),
    ("n: 8\n", None, "n: 8\n"),
    ("m:\n  min: 1\n", {"steps": 5}, "m: {steps: 5}\n"),
    ("m: {a: 1}\n", None, "m: null\n"),
    ("m: 32\n", 32.0, "m: 32\n"),
    ("m: 010\n", 10, "m: 10\n"),
])  # fmt: skip
def test_other_kinds_of_values(old: str, value: object, new: str) -> None:
    setting = Setting(path=("m",), value=value)  # type: ignore[arg-type]
    assert spliced(old, setting) == new
    assert spliced(new, setting) == new


@pytest.mark.parametrize(("base", "reason", "line"), [
    ("ok: 1\nlr: |\n  0.1\n", "a block of text", 2),
    ("lr: &x 1\nok: *x\n", "shared: *x in line ", 1),
    ("ok: 1\nlr: !vault 1\n", "the tag !vault", 2),
    ("ok: 1\nlr: 1\nlr: 2\n", "stands there 2 times (lines 3 and 4)", None),
    ("ok: 1\nlr: {{ .Values.lr }}\n", "has a mapping there", 2),
    ("ok: 1\nlr: '{{ lr }}'\n", "filled in from elsewhere ({{ lr }})", 2),
    ("ok: 1\nlr: ${oc.env:LR}\n", "filled in from elsewhere", 2),
    ("ok: 1\nlr: [1, 2]\n", "has a list there", 2),
])  # fmt: skip
def test_what_has_no_safe_place_is_listed_with_its_line(base: str, reason: str, line: int | None) -> None:
    """All lines are those of the new text; of a value that stands there twice they are named once."""
    merged = merge(base, "", [Setting(path=("lr",), value=0.5), Setting(path=("ok",), value=2)], ("o",), "f.yaml")
    (left,) = merged.unwritten
    assert reason in left.reason
    assert left.line == (None if line is None else line + 1)  # below the comment
    assert left.line is None or merged.text.splitlines()[left.line - 1].startswith("lr:")
    assert merged.refused[0].line == line
    with pytest.raises(InvalidRequest, match=r"nothing was written to f\.yaml"):
        merge(base, "", [Setting(path=("lr",), value=0.5)], (), "f.yaml")


@pytest.mark.parametrize(("base", "missed", "found"), [
    ("lr: 1\nlr: 2\n", True, "2"),
    ("lr: 1\nlr: 0.5\n", True, None),
    ("lr: 0.5\nlr: 5e-1\n", False, None),
    ("lr: &x 0.5\nb: *x\n", False, None),
    ("lr: &x 1\nb: *x\n", True, "1"),
    ("lr: '{{ lr }}'\n", True, "{{ lr }}"),
    ("lr: [1, 2]\n", True, None),
    ("lr: 0.5\nsteps: 9\n", True, None),
    ("steps: 9\n", True, None),
])  # fmt: skip
def test_what_is_missed_is_what_the_file_says_otherwise(base: str, missed: bool, found: str | None) -> None:
    setting = Setting(path=("lr",), value=0.5, rivals=("steps",))
    (left,) = merge(base, "", [setting, RANK], (), "f.yaml").unwritten
    assert (left.missed, left.found) == (missed, found)


def test_what_comes_from_a_merge_is_not_hidden_in_part() -> None:
    base = "d: &d\n  parameters: {lora_r: 1}\n  x: 1\njob:\n  <<: *d\n  y: 2\n"
    merged = merge(base, "job", [Setting(path=("parameters", "lora_r"), value=8), RANK], (), "f.yaml")
    assert [one.name for one in merged.unwritten] == ["parameters.lora_r"]
    assert "comes from a merge (<<) with line 2" in merged.unwritten[0].reason
    assert merged.text == base + "  lora_r: 8\n"


def test_comments_and_anchors_in_a_list_keep_it() -> None:
    for base in (
        "m:\n  - a\n  # why\n  - b\nlora_r: 1\n",
        "m: [&q a, b]\nlora_r: 1\nn: *q\n",
        "m: [{a: 1}]\nlora_r: 1\n",
    ):
        merged = merge(base, "", [Setting(path=("m",), value=["x"]), RANK], (), "f.yaml")
        assert [one.name for one in merged.unwritten] == ["m"]
        assert merged.text == base.replace("lora_r: 1", "lora_r: 8")


def test_a_key_of_the_target_that_decides_instead() -> None:
    warmup = Setting(path=("warmup_ratio",), value=0.1, rivals=("warmup_steps",))
    merged = merge("warmup_steps: 100\nlora_r: 1\n", "", [warmup, RANK], (), "f.yaml")
    assert [(one.name, one.line) for one in merged.unwritten] == [("warmup_ratio", 1)]
    assert merged.unwritten[0].reason == "the file's warmup_steps (100) decides instead; remove it first"
    assert merged.text == "warmup_steps: 100\nlora_r: 8\n"
    for off in ("warmup_steps: 0\n", "warmup_steps:\n", "warmup_steps: -1\n"):
        assert "warmup_ratio: 0.1\n" in spliced(off, warmup)


@pytest.mark.parametrize(("base", "key", "new"), [
    ("a: 1\n", "jobs.sft", "a: 1\njobs:\n  sft:\n    lora_r: 8\n"),
    ("a:\n    b: {}  # none\n", "a.b", "a:\n    b:  # none\n        lora_r: 8\n"),
    ("a: {b: {}}\n", "a.b", "a: {b: {lora_r: 8}}\n"),
    ('{"a": null}', "a", '{"a": {"lora_r": 8}}'),
    ("a: null\nc: 1\n", "a", "a:\n  lora_r: 8\nc: 1\n"),
    ("s:\n- run: x\n- env:\n    A: 1\n", "s.1.env", "s:\n- run: x\n- env:\n    A: 1\n    lora_r: 8\n"),
    ("a: 1\n---\nd:\n  best.yaml: {lora_r: 1}\n", "d.best\\.yaml", "a: 1\n---\nd:\n  best.yaml: {lora_r: 8}\n"),
])  # fmt: skip
def test_keys_lead_to_a_place(base: str, key: str, new: str) -> None:
    assert spliced(base, RANK, key=key) == new
    assert spliced(new, RANK, key=key) == new


@pytest.mark.parametrize(
    ("base", "key", "message"),
    [
        ("a: 1\n", "a.b", "a.b of f.yaml, line 1: 'a' holds 1, which has no fields"),
        ("- 1\n", "", "f.yaml holds no mapping"),
        ("- 1\n", "a", "the file has a list there"),
        ("a: [\n", "a", r"f.yaml, line \d is not YAML"),
        ("a:\n\tb: 1\n", "a", r"f.yaml, line 2 is not YAML: .* Mend it first"),
        ("{{- if .x }}\na: 1\n{{- end }}\n", "a", "line 1 is not YAML.*It looks like a template"),
        ("a: x\u2028y\n", "a", r"line 1 is not YAML: it holds '\\u2028', which ends a line for some readers"),
        ("! # nothing\n", "", "holds no mapping"),
        ("a: \x01\n", "a", "line 1 is not YAML: the character"),
        ("a: 1\n---\na: 2\n", "a", "holds 2 documents, and 2 of them have the key a"),
        ("a: 1\na: 2\n", "a.b", "a stands there 2 times"),
        ("a: &x {b: 1}\nc: *x\n", "a", r"it is shared: \*x in line 2"),
        ("a: &x {b: 1}\nc: *x\n", "c", r"\*x stands for a value that is shared"),
        ("a: !include other.yaml\n", "a", "other.yaml, which has no fields"),
        ("a: !new {b: 1}\n", "a", "in a value with the tag !new"),
        ("[" * 150 + "]" * 150, "a", "line 1 is not YAML: it is nested more than 100 levels deep"),
    ],
)
def test_what_cannot_take_values_is_refused(base: str, key: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        merge(base, key, [RANK], (), "f.yaml")


def test_json_gets_no_comments_and_no_yaml() -> None:
    base = '{\n  "model": "x",\n  "lora": {"r": 4, "target_modules": ["q_proj"]}\n}'
    merged = merge(base, "lora", settings("peft", target_modules="k_proj,v_proj"), ORIGIN, "f.json")
    assert merged.has_origin is False
    assert yaml.safe_load(merged.text)["lora"]["target_modules"] == ["k_proj", "v_proj"]
    assert json.loads(merged.text)["lora"]["r"] == 16
    assert merged.text.startswith('{\n  "model": "x",\n  "lora": {"r": 16, "target_modules": ["k_proj", "v_proj"], "')


@pytest.mark.parametrize("base", ["", "# only a comment\n", "a: 1\n", "a: 1"])
@pytest.mark.parametrize("format", ["trl", "axolotl", "llamafactory", "helm", "hydra", "yaml", "hf", "peft", "env"])
def test_a_whole_export_can_be_merged_into_nothing(base: str, format: str) -> None:
    values = settings(format, *Group)
    merged = merge(base, "jobs.sft", values, ORIGIN, "ci.yaml")
    assert merged.unwritten == ()
    found = yaml.safe_load(merged.text)["jobs"]["sft"]
    for one in values:
        place = found
        for part in one.path[:-1]:
            place = place.get(part, {})
        assert place.get(one.path[-1]) == one.value, one
    assert merge(merged.text, "jobs.sft", values, ORIGIN, "ci.yaml").text == merged.text
