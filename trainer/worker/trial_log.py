"""The log of a trial: one JSON line an optimizer step, kept beside its snapshots."""

import json
from types import TracebackType
from typing import Self

from trainer.snapshots.stores.base import LogFile
from trainer.training.engines.base import Step

MAX_LOG_BYTES = 32 * 1024 * 1024


class TrialLog:
    """Appends steps; an attempt that goes over the same steps again appends them again, under its own token.

    Nothing is written once the file holds `MAX_LOG_BYTES`. Without a file nothing is written at all.
    """

    def __init__(self, file: LogFile | None, slice_id: int, attempt: int) -> None:
        self._file = file
        self._token = {"slice": slice_id, "attempt": attempt}

    def append(self, step: Step) -> None:
        """Write one line and hand it on."""
        if self._file is not None and self._file.tell() < MAX_LOG_BYTES:
            line = {
                **self._token,
                "step": step.step,
                "examples": step.examples_seen,
                "loss": step.loss,
                "grad_norm": step.gradient_norm,
                "lr": step.learning_rate,
                "tokens": step.tokens,
            }
            self._file.write(json.dumps(line).encode() + b"\n")
            self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
