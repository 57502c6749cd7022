"""What an exception means for the attempt in which it was raised."""

import torch

from trainer.common.errors import TrainerError
from trainer.spec import Outcome

#: what errors of other types than torch's own say where memory ran out: the CPU's allocator, kernels, cuBLAS
_OUT_OF_MEMORY = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def outcome_of(error: Exception) -> tuple[Outcome, str]:
    """(outcome, one sentence) of an exception that ended an attempt."""
    if isinstance(error, TrainerError):
        return error.outcome, _sentence(error)
    if is_out_of_memory(error):
        return Outcome.OOM, f"out of memory: {_sentence(error)}"
    return Outcome.INFRA_ERROR, f"{type(error).__name__}: {_sentence(error)}"


def is_out_of_memory(error: Exception) -> bool:
    """Whether device or host memory ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


def _sentence(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:500] or type(error).__name__
