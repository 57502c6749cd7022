"""What every engine offers to the slice loop."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Protocol, TypeVar

from trainer.accounting.meter import ModelShape
from trainer.data.dataset import Judged
from trainer.memory.micro_batch import MemoryPlan
from trainer.snapshots.snapshot import Snapshot, TrialState
from trainer.spec import DataFingerprints, Notice, TrialSpec
from trainer.training.divergence import DivergenceWatch
from trainer.training.evaluate import BatchWork, Evaluation


@dataclass(frozen=True)
class Step:
    """One optimizer step that was taken.

    `step` counts from 1, `loss` is the mean over the response tokens of the effective batch, `gradient_norm` is
    before clipping, `tokens` leaves padding out, `flops` are model FLOPs and `recomputed_flops` what activation
    checkpointing added to them; `data_seconds` of the step were spent on building batches.
    """

    step: int
    examples_seen: int
    loss: float
    gradient_norm: float
    learning_rate: float
    examples: int
    tokens: int
    flops: float
    recomputed_flops: float
    data_seconds: float


class AdmittedTrial(Protocol):
    """A trial that an engine holds."""

    @property
    def spec(self) -> TrialSpec:
        """What is trained."""

    @property
    def digest(self) -> str:
        """Digest of `spec`."""

    @property
    def data_fingerprints(self) -> DataFingerprints:
        """What its data are."""

    def left_out(self) -> Notice | None:
        """Tells of rows of its data that are left out; None if none are."""

    @property
    def examples_seen(self) -> int:
        """Training examples behind the trial."""

    @property
    def step(self) -> int:
        """Optimizer steps behind the trial."""

    @property
    def total_examples(self) -> int:
        """Training examples at the trial's own end."""

    @property
    def adapter_parameters(self) -> int:
        """Trainable parameters."""

    @property
    def recent_loss(self) -> float | None:
        """Mean training loss of the last 10 steps."""

    @property
    def plan(self) -> MemoryPlan:
        """The micro-batch it is run with, and its predicted peak memory."""

    @property
    def watch(self) -> DivergenceWatch:
        """What looks after its losses."""


Trial = TypeVar("Trial", bound=AdmittedTrial)


class Engine(Protocol[Trial]):
    """Trains trials on one warm base. A trial's numbers do not depend on which others are admitted."""

    @property
    def base_digest(self) -> str:
        """Identity of the base's weights."""

    @property
    def shape(self) -> ModelShape:
        """What FLOP formulas need to know of the base."""

    @property
    def attention(self) -> str:
        """The attention implementation that was chosen."""

    @property
    def usable_bytes(self) -> int:
        """Device memory that trials may use, base included."""

    def fits(self, spec: TrialSpec) -> bool:
        """Whether a trial of `spec` runs on the base as this engine holds it."""

    def plan(self, spec: TrialSpec, snapshot: Snapshot | None, micro_batch: int | None = None) -> MemoryPlan:
        """How `admit` would run the trial. Allocates nothing on the device; raises what `admit` raises for the data.

        Raises:
            MemoryShortage: the trial does not fit the device, even with one example at a time.
        """

    def admit(self, spec: TrialSpec, snapshot: Snapshot | None, micro_batch: int | None = None) -> Trial:
        """Take a trial in, from its start or from a verified snapshot of it.

        It takes `micro_batch` examples at once at most, if memory is known to run out with more.

        Raises:
            UserError: the spec asks for what the base does not have.
            DataError: the data is unusable, or not what it was when the snapshot was taken.
            SnapshotError: the snapshot does not fit the trial.
        """

    def advance(self, trial: Trial, until_examples: int) -> Generator[Step, None, None]:
        """Train to the first step at or past `until_examples`, or to the trial's end; one optimizer step a `next`.

        The trial is at a step boundary whenever this yields. Raises Diverged before the step's update is applied.
        """

    def evaluate(self, trial: Trial, part: Judged = "evaluation") -> Generator[BatchWork, None, Evaluation]:
        """Evaluate on these examples of the trial, one batch a `next`; training is not influenced."""

    def snapshot(self, trial: Trial, evaluation: Evaluation | None) -> TrialState:
        """Copy the trial's state to the host, with the evaluation that was made of exactly this state."""

    def halve(self, trial: Trial) -> bool:
        """After memory ran out: go on with half the micro-batch and the same effective batch.

        The trial is at the step boundary before. False if that was done already, or if the engine cannot.
        """

    def evict(self, trial: Trial) -> None:
        """Forget the trial and free its memory. Raises BaseChangedError if the base was written to."""

    def close(self) -> None:
        """Let go of the base; the engine cannot be used again."""
