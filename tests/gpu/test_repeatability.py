"""One step twice on a GPU: rows long enough for the kernels that split a sum, with and without a mask."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer.accounting.devices import auto_dtype
from trainer.data.token_cache import TokenCache
from trainer.spec import TrialSpec
from trainer.worker.repeatability import is_repeatable
from trainer.worker.resident_trials import Residents

MakeSpec = Callable[..., TrialSpec]


@pytest.fixture
def long_rows(tmp_path: Path) -> Path:
    """Rows of some 400 tokens."""
    path = tmp_path / "long.jsonl"
    rows = ({"instruction": "cat dog " * 40, "input": "", "output": f"river {number} " * 60} for number in range(32))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("change", [{}, {"packing": True}, {"attention": "sdpa"}, {"use_dora": True}])
def test_a_step_can_be_repeated(
    make_spec: MakeSpec, long_rows: Path, token_cache: TokenCache, cuda: torch.device, dtype: str, change: Any
) -> None:
    rows = {"train": str(long_rows), "eval": str(long_rows), "max_length": 512}
    spec = make_spec(dtype=dtype, micro_batch=8, effective_batch=16, lora_dropout=0.1, **rows, **change)
    engine = Residents(cuda, 1, token_cache).engine(spec)
    assert is_repeatable(engine, spec, 8)
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()


def test_auto_is_bfloat16_where_the_card_has_it(cuda: torch.device) -> None:
    has_bfloat16 = torch.cuda.get_device_capability(cuda) >= (8, 0)
    assert auto_dtype(cuda) == ("bfloat16" if has_bfloat16 else "float32")
