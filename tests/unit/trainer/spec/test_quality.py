"""Thresholds: what a user may write, and what it means."""

import pytest
from pydantic import TypeAdapter, ValidationError

from trainer.spec import QualityThresholds
from trainer.spec.quality import CHECKS, Threshold


def test_what_is_left_out_keeps_its_default() -> None:
    thresholds = QualityThresholds.model_validate({"near_duplicates": {"warn": 0.1}, "mojibake": {"fail": None}})
    assert thresholds.near_duplicates == Threshold(warn=0.1, fail=0.5)
    assert thresholds.mojibake == Threshold(warn=0.005, fail=None)
    assert thresholds.secrets == QualityThresholds().secrets


@pytest.mark.parametrize(
    ("word", "expected"),
    [("off", Threshold()), ("warn", Threshold(warn=0.02)), ("fail", Threshold(warn=0.02, fail=0.02))],
)
def test_a_word_stands_for_a_threshold(word: str, expected: Threshold) -> None:
    thresholds = QualityThresholds.model_validate({"near_duplicates": word})
    assert thresholds.near_duplicates == expected
    assert thresholds.near_duplicates.off is (word == "off")


@pytest.mark.parametrize(
    "value", ["never", 0.5, {"warn": -1}, {"warn": "high"}, {"warning": 1}, {"fail": float("inf")}]
)
def test_anything_else_is_refused(value: object) -> None:
    with pytest.raises(ValidationError):
        QualityThresholds.model_validate({"near_duplicates": value})


def test_thresholds_survive_json() -> None:
    thresholds = QualityThresholds.model_validate({"near_duplicates": "off", "secrets": "warn", "enabled": False})
    assert QualityThresholds.model_validate_json(thresholds.model_dump_json()) == thresholds


@pytest.mark.parametrize(("measure", "verdict"), [(0.1, "pass"), (0.11, "warn"), (0.2, "warn"), (0.21, "fail")])
def test_a_measure_must_be_above_its_limit(measure: float, verdict: str) -> None:
    assert Threshold(warn=0.1, fail=0.2).verdict(measure) == verdict


def test_every_check_warns_by_default_and_is_described() -> None:
    for check in CHECKS:
        assert QualityThresholds().threshold(check).warn is not None
        assert f"        {check}: " in (QualityThresholds.__doc__ or "")


def test_the_json_schema_knows_the_words() -> None:
    schema = TypeAdapter(QualityThresholds).json_schema()
    assert {"type": "string", "enum": ["off", "warn", "fail"]} in schema["$defs"]["Threshold"]["anyOf"]
