"""The long proofs: every option against plain PEFT, every kind of trial in many scrambled companies."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mixed_trials import KINDS, differing
from tests.plain_peft import OPTIONS, largest_difference
from trainer.spec import TrialSpec
from trainer.training.engines.resident import ResidentEngine

MakeEngine = Callable[..., ResidentEngine]
MakeSpec = Callable[..., TrialSpec]


@pytest.mark.parametrize("name", OPTIONS)
def test_losses_equal_a_plain_loop(name: str, base_folder: Path, engine: ResidentEngine, make_spec: MakeSpec) -> None:
    difference, fall = largest_difference(name, base_folder, engine, make_spec)
    print(f"{name}: largest difference {difference:.2e} while the loss fell by {fall:.2f}")
    assert difference <= 1e-5
    assert fall > 0.1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_company_changes_nothing(make_engine: MakeEngine, make_spec: MakeSpec, tmp_path: Path, dtype: str) -> None:
    assert differing(make_engine, make_spec, list(KINDS), dtype, tmp_path, seeds=list(range(10, 18))) == []
