"""The values of an export one by one: each says what it is about, and the row format is never a guess."""

from typing import Any

import pytest
import yaml

from hpo_service.cli.export_file import ExportFormat
from hpo_service.core.errors import InvalidRequest
from hpo_service.core.export_groups import GROUPS, Group
from hpo_service.exporters import FORMATS, render
from hpo_service.exporters.values import ExportedValue
from hpo_service.services.common.exported_values import exported_values
from tests.exported import OTHER, document

MERGED = [name for name in FORMATS if name != "kustomize"]
SECTIONS: list[dict[str, Any]] = [
    {"model": {"path": "other"}},
    {"model": {"dtype": "bfloat16"}},
    {"model": {"attention": "sdpa"}},
    {"model": {"quantization": "nf4"}},
    {"data": {"train": "other.jsonl"}},
    {"data": {"eval": "eval.jsonl", "format": "chat"}},
    {"data": {"max_length": 64}},
    {"data": {"learn": "all"}},
    {"training": {"seed": 5}},
    {"training": {"micro_batch": 2}},
    {"training": {"activation_checkpointing": True}},
]


def values_of(format: str, **changes: Any) -> dict[tuple[str, ...], ExportedValue]:
    values = render(format, document(**changes)).values
    assert values is not None
    return {one.path: one for one in values}


def changed(format: str, before: dict[str, Any], after: dict[str, Any]) -> set[Group]:
    """The groups of the values that differ."""
    old, new = values_of(format, **before), values_of(format, **after)
    return {
        (new.get(path) or old[path]).group
        for path in old.keys() | new.keys()
        if path not in old or path not in new or old[path].value != new[path].value
    } - {Group.PROVENANCE}


@pytest.mark.parametrize("format", MERGED)
@pytest.mark.parametrize("name", OTHER)
def test_a_hyperparameter_changes_hyperparameters(format: str, name: str) -> None:
    base: dict[str, Any] = {"lr_scheduler": "wsd"} if name == "decay_ratio" else {}
    split = {Group.BATCH} if name == "effective_batch" else set()
    assert changed(format, base, {**base, name: OTHER[name]}) <= {Group.HYPERPARAMETERS, *split}


@pytest.mark.parametrize("format", MERGED)
@pytest.mark.parametrize("change", SECTIONS)
def test_nothing_else_does(format: str, change: dict[str, Any]) -> None:
    assert Group.HYPERPARAMETERS not in changed(format, {}, change)


@pytest.mark.parametrize("format", MERGED)
def test_the_values_are_those_of_the_file(format: str) -> None:
    if format == "env":
        return
    read = yaml.safe_load(render(format, document()).text)
    for path, one in values_of(format).items():
        place = read
        for part in path:
            place = place.get(part) if isinstance(place, dict) else None
        assert place == one.value or (place is None and one.value in ({}, None)), path


@pytest.mark.parametrize("format", ["axolotl", "trl", "llamafactory", "hf"])
def test_the_effective_batch_says_how_it_is_split(format: str) -> None:
    found = render(format, document(effective_batch=24))
    assert found.batch is not None
    values = values_of(format, effective_batch=24)
    parts = [values[(name,)].value for name in (found.batch.per_device, found.batch.accumulation)]
    assert parts[0] * parts[1] == found.batch.effective == 24
    assert render(format, document(data={"packing": True})).batch is None


def test_every_group_is_explained_and_a_whole_is_no_sum() -> None:
    assert set(GROUPS) == set(Group) - {Group.HYPERPARAMETERS}
    assert [str(format) for format in ExportFormat] == list(FORMATS)
    with pytest.raises(InvalidRequest, match="a file of format kustomize is a whole"):
        exported_values("kustomize", document(), strict=False)
    told = exported_values("trl", document(), strict=False, promotion="bot@1")
    assert told.origin[0] == "Trial 4 of study s: eval_loss 2.0"
    assert not any("Exported" in line for line in told.origin)


@pytest.mark.parametrize("format", ["yaml", "json", "env", "helm", "hydra", "kustomize", "axolotl", "trl"])
def test_an_unknown_row_format_is_said_and_not_written(format: str) -> None:
    """`data.format: auto` went into files whose readers have to be told."""
    text = render(format, document()).text
    body = "\n".join(line for line in text.splitlines() if "#" not in line)
    assert "format: auto" not in body.lower()
    assert '"format": "auto"' not in body
    assert "FORMAT=auto" not in body
    assert format == "json" or "The format of the rows was not recorded" in text
    assert "not recorded" not in render(format, document(data={"format": "chat"})).text
