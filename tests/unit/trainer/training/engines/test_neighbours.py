"""Trials of different kinds in scrambled company: equal bit for bit to each alone. More companies are in tests/full."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mixed_trials import differing
from trainer.spec import TrialSpec
from trainer.training.engines.resident import ResidentEngine


@pytest.mark.parametrize(
    ("dtype", "kinds"),
    [("float32", ["plain", "wide", "dora", "pissa", "neftune"]), ("bfloat16", ["rslora", "olora", "loraplus", "wide"])],
)
def test_company_changes_nothing(
    make_engine: Callable[..., ResidentEngine],
    make_spec: Callable[..., TrialSpec],
    tmp_path: Path,
    dtype: str,
    kinds: list[str],
) -> None:
    assert differing(make_engine, make_spec, kinds, dtype, tmp_path, seeds=[1, 2]) == []
