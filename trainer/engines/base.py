"""What every engine offers to the slice loop."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Protocol, TypeVar

from trainer.accounting import ModelShape
from trainer.evaluate import Evaluation
from trainer.snapshot import Snapshot, TrialState
from trainer.spec import TrialSpec
from trainer.tokens import Batch


@dataclass(frozen=True)
class Step:
    """One optimizer step that was taken.

    `step` counts from 1, `loss` is the mean over the response tokens of the effective batch, `gradient_norm` is
    before clipping, `tokens` leaves padding out.
    """

    step: int
    examples_seen: int
    loss: float
    gradient_norm: float
    learning_rate: float
    examples: int
    tokens: int
    flops: float


class AdmittedTrial(Protocol):
    """A trial that an engine holds."""

    @property
    def spec(self) -> TrialSpec:
        """What is trained."""

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


Trial = TypeVar("Trial", bound=AdmittedTrial)


class Engine(Protocol[Trial]):
    """Trains trials on one warm base. A trial's numbers do not depend on which others are admitted."""

    @property
    def base_digest(self) -> str:
        """Identity of the base's weights."""

    @property
    def shape(self) -> ModelShape:
        """What FLOP formulas need to know of the base."""

    def admit(self, spec: TrialSpec, snapshot: Snapshot | None) -> Trial:
        """Take a trial in, from its start or from a verified snapshot of it.

        Raises:
            UserError: the spec asks for what the base does not have.
            DataError: the data is unusable.
            SnapshotError: the snapshot does not fit the trial.
        """

    def advance(self, trial: Trial, until_examples: int) -> Generator[Step, None, None]:
        """Train to the first step at or past `until_examples`, or to the trial's end; one optimizer step a `next`.

        The trial is at a step boundary whenever this yields. Raises Diverged before the step's update is applied.
        """

    def evaluate(self, trial: Trial) -> Generator[Batch, None, Evaluation]:
        """Evaluate on the trial's evaluation examples, one batch a `next`; training is not influenced."""

    def snapshot(self, trial: Trial, evaluation: Evaluation | None) -> TrialState:
        """Copy the trial's state to the host, with the evaluation that was made of exactly this state."""

    def evict(self, trial: Trial) -> None:
        """Forget the trial and free its memory. Raises BaseChangedError if the base was written to."""
