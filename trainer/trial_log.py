"""The log of a trial: one JSON line an optimizer step, kept beside its snapshots."""

import json
from pathlib import Path
from types import TracebackType
from typing import Self

from trainer.engines.base import Step

MAX_LOG_BYTES = 32 * 1024 * 1024


def log_path(root: Path, snapshot_dir: str) -> Path:
    """`<root>/<study>/<trial>/log.jsonl`, from the first two components of a slice's `snapshot_dir`."""
    return root.joinpath(*snapshot_dir.split("/")[:2], "log.jsonl")


class TrialLog:
    """Appends steps; an attempt that goes over the same steps again appends them again, under its own token.

    Nothing is written once the file holds `MAX_LOG_BYTES`.
    """

    def __init__(self, path: Path, slice_id: int, attempt: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")
        self._token = {"slice": slice_id, "attempt": attempt}

    def append(self, step: Step) -> None:
        """Write one line and hand it to the operating system."""
        if self._file.tell() < MAX_LOG_BYTES:
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
        self._file.close()
