"""What an exception means for an attempt."""

import pytest
import torch

from trainer.common.errors import DataError, TrainerError
from trainer.common.outcomes import outcome_of
from trainer.spec import Outcome


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 64 bytes."),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        torch.AcceleratorError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_memory_that_ran_out_in_any_words(error: Exception) -> None:
    outcome, message = outcome_of(error)
    assert outcome is Outcome.OOM
    assert message.startswith("out of memory: ")


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (RuntimeError("CUDA error: an illegal memory access was encountered"), Outcome.INFRA_ERROR),
        (ValueError("CUDA error: out of memory"), Outcome.INFRA_ERROR),
        (TrainerError("the link broke"), Outcome.INFRA_ERROR),
        (DataError("no rows"), Outcome.DATA_ERROR),
    ],
)
def test_other_errors(error: Exception, outcome: Outcome) -> None:
    assert outcome_of(error)[0] is outcome
