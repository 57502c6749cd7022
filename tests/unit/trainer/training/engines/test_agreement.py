"""A hundred steps of the engine against plain transformers + PEFT; the other options are in tests/full."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.plain_peft import largest_difference
from trainer.spec import TrialSpec
from trainer.training.engines.resident import ResidentEngine


@pytest.mark.parametrize("name", ["dropout", "dora_pissa"])
def test_losses_equal_a_plain_loop(
    name: str, base_folder: Path, engine: ResidentEngine, make_spec: Callable[..., TrialSpec]
) -> None:
    difference, fall = largest_difference(name, base_folder, engine, make_spec)
    assert difference <= 1e-5
    assert fall > 0.1
