"""A slice, what it hands back, and the snapshots between slices."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from trainer.spec.base import Frozen, Outcome, Sha256
from trainer.spec.fingerprints import DataFingerprints
from trainer.spec.trial import Dtype, TrialSpec
from trainer.spec.usage import Notice, Usage


class SnapshotRef(Frozen):
    """A snapshot on the shared store. `digest` is the SHA-256 of its `manifest.json`."""

    path: Annotated[str, Field(pattern=r"^[0-9a-z][0-9a-z/-]*$", max_length=256)]
    digest: Sha256
    examples_seen: Annotated[int, Field(ge=0)]


class FileDigest(Frozen):
    """One file of a snapshot."""

    sha256: Sha256
    size_bytes: Annotated[int, Field(ge=0)]


class SnapshotManifest(Frozen):
    """`manifest.json`: cursors, RNG keys and digests. Written last, after every file it names is on disk."""

    version: Literal[1] = 1
    trial_digest: str
    base_digest: str
    data_fingerprints: DataFingerprints
    examples_seen: int
    step: int
    total_examples: int
    micro_batch: int
    divergence: dict[str, Any]
    eval_loss: float | None
    eval_tokens: int | None
    usage: Usage
    files: dict[str, FileDigest]


class Slice(Frozen):
    """Take the trial from the newest of `snapshots` that verifies (else from its start) to `until_examples`.

    The rung is reached at the first optimizer step at or past `until_examples`, or at the trial's own end.
    `snapshot_dir` is relative to the snapshot root and unique to `(slice, attempt)`. `data_fingerprints` are those that
    the data must have; None for the first slices of a study, whose results say what they are. `micro_batch` is the most
    examples that a rank takes at once, below what the trial's settings say: memory ran out with twice as many.
    """

    slice_id: int
    attempt: Annotated[int, Field(ge=1)]
    trial: TrialSpec
    until_examples: Annotated[int, Field(ge=1)]
    snapshot_dir: Annotated[str, Field(pattern=r"^[0-9a-z][0-9a-z/-]*$", max_length=200)]
    snapshots: tuple[SnapshotRef, ...] = ()
    data_fingerprints: DataFingerprints | None = None
    micro_batch: Annotated[int, Field(ge=1)] | None = None
    alone: bool = False  #: no other slice beside it: it may have ended a worker that it shared

    @property
    def token(self) -> tuple[int, int]:
        """The fencing token."""
        return (self.slice_id, self.attempt)


class SliceResult(Frozen):
    """How an attempt ended and what it leaves behind. `finished` says that the trial has seen all its examples.

    `fold_losses` are the mean losses of fixed folds of the evaluation examples, the same for every trial of a study.
    `flops_per_example` are predicted model FLOPs of training on an example as long as the evaluation examples are.
    `test_loss` comes with the last slice of a trial that has test rows. `dtype`, `attention` and `micro_batch` are what
    it was computed with. `data_fingerprints` are those of the data that were found, None if none were looked at.
    `snapshot_files` are those of the snapshot at a trial's end. `repeatable` says whether a
    training step that was taken twice gave the same bits, where the attempt was the first on its worker's base.
    `ends_worker` says that the worker ends right after it:
    a rank failed in the middle of what all do together.
    """

    type: Literal["result"] = "result"
    slice_id: int
    attempt: int
    outcome: Outcome
    examples_seen: int
    finished: bool = False
    eval_loss: float | None = None
    eval_tokens: int | None = None
    fold_losses: tuple[float, ...] = ()
    flops_per_example: float | None = None
    adapter_parameters: int | None = None
    test_loss: float | None = None
    train_loss: float | None = None
    snapshot: SnapshotRef | None = None
    snapshot_files: dict[str, FileDigest] = Field(default_factory=dict)
    resumed_from_examples: int = 0
    discarded_snapshots: tuple[str, ...] = ()
    data_fingerprints: DataFingerprints | None = None
    usage: Usage = Usage()
    device: str = ""
    dtype: Dtype | Literal[""] = ""
    attention: str = ""
    micro_batch: int | None = None
    predicted_memory_bytes: int | None = None
    repeatable: bool | None = None
    notices: tuple[Notice, ...] = ()
    ends_worker: bool = False
    message: str = ""

    @model_validator(mode="after")
    def _done_is_complete(self) -> "SliceResult":
        if self.outcome is Outcome.DONE and (self.eval_loss is None or self.snapshot is None):
            raise ValueError("a slice that is done carries its evaluation loss and its snapshot")
        return self
