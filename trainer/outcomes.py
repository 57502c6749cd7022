"""What an exception means for the attempt in which it was raised."""

import torch

from trainer.errors import TrainerError
from trainer.spec import Outcome


def outcome_of(error: Exception) -> tuple[Outcome, str]:
    """(outcome, one sentence) of an exception that ended an attempt."""
    if isinstance(error, TrainerError):
        return error.outcome, _sentence(error)
    if is_out_of_memory(error):
        return Outcome.OOM, f"out of memory: {_sentence(error)}"
    return Outcome.INFRA_ERROR, f"{type(error).__name__}: {_sentence(error)}"


def is_out_of_memory(error: Exception) -> bool:
    """Whether device or host memory ran out. The CPU allocator of torch says so in words only."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def _sentence(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:500] or type(error).__name__
