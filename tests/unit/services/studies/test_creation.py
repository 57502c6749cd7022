"""Cloning with changes."""

from hpo_service.services.studies.creation import merge_patch


def test_merge_patch() -> None:
    document = {"a": {"b": 1, "c": 2}, "d": [1], "e": 3}
    assert merge_patch(document, {"a": {"b": None, "x": {"y": 1}}, "d": [2], "e": {"f": 1}}) == {
        "a": {"c": 2, "x": {"y": 1}},
        "d": [2],
        "e": {"f": 1},
    }
    assert document["a"] == {"b": 1, "c": 2}
