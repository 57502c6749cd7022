"""Errors of the trainer. Each knows the outcome that it means for an attempt."""

from typing import ClassVar

from trainer.spec import Outcome


class TrainerError(Exception):
    """Something went wrong in a way that one sentence explains."""

    outcome: ClassVar[Outcome] = Outcome.INFRA_ERROR


class UserError(TrainerError):
    """The spec asks for something impossible: no such model, module or attention."""

    outcome = Outcome.USER_ERROR


class DataError(TrainerError):
    """The data cannot be read or holds nothing to train on."""

    outcome = Outcome.DATA_ERROR


class Diverged(TrainerError):
    """The loss or a gradient is not finite, or the loss exploded; at which step, and the values that say so."""

    outcome = Outcome.DIVERGED

    def __init__(self, message: str, *, step: int | None = None, values: dict[str, float] | None = None) -> None:
        super().__init__(message)
        self.step = step
        self.values = values or {}


class MemoryShortage(TrainerError):
    """The trial does not fit the device, even with one example at a time: predicted before anything is allocated."""

    outcome = Outcome.OOM

    def __init__(self, message: str, *, predicted_bytes: int) -> None:
        super().__init__(message)
        self.predicted_bytes = predicted_bytes


class OutOfMemory(TrainerError):
    """Memory ran out on one of several ranks, and all of them know."""

    outcome = Outcome.OOM


class SnapshotError(TrainerError):
    """A snapshot is missing, damaged, outside the store or of another trial."""


class BaseChangedError(TrainerError):
    """The frozen base model was written to: nothing this process computes can be trusted any more."""
