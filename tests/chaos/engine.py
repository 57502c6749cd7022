"""An engine without a model: steps take a little time, and losses are those of `losses`."""

import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.chaos.losses import LARGEST_LEARNING_RATE, loss_of, marked
from trainer.accounting.meter import ModelShape
from trainer.common.errors import Diverged
from trainer.data.dataset import Judged
from trainer.data.rows import total_examples
from trainer.memory.micro_batch import MemoryPlan
from trainer.memory.peak_estimate import MemoryPrediction
from trainer.snapshots.snapshot import Snapshot, TrialState
from trainer.spec import DataFingerprints, TrialSpec
from trainer.training.divergence import DivergenceWatch
from trainer.training.engines.base import Step
from trainer.training.evaluate import BatchWork, Evaluation

_EVALUATION_EXAMPLES = 8
_PLAN = MemoryPlan(1, 1, MemoryPrediction(base=0, resting=0, training=0, evaluation=0))


@dataclass(kw_only=True)
class MarkedTrial:
    """A trial whose whole state is where it is and the mark of all it has seen."""

    spec: TrialSpec
    total_examples: int
    watch: DivergenceWatch
    examples_seen: int = 0
    step: int = 0
    mark: int = 0
    adapter_parameters: int = 1000
    plan: MemoryPlan = _PLAN

    @property
    def digest(self) -> str:
        """Of the spec."""
        return self.spec.digest()

    def left_out(self) -> None:
        """No file of the data is looked at."""

    @property
    def data_fingerprints(self) -> DataFingerprints:
        """Of nothing."""
        return DataFingerprints(train="0" * 64)

    @property
    def recent_loss(self) -> float | None:
        """Mean training loss of the last 10 steps."""
        return self.watch.recent_mean()


class MarkingEngine:
    """See `Engine`. Trials end after `max_train_examples` times their epochs; no file of the data is looked at."""

    base_digest = "0" * 64
    shape = ModelShape(1, 1, 1, 1)
    attention = "none"
    usable_bytes = 2**40

    def __init__(self, spec: TrialSpec, step_seconds: float) -> None:
        self._model = spec.model
        self._step_seconds = step_seconds

    def fits(self, spec: TrialSpec) -> bool:
        """See `Engine.fits`."""
        return spec.model == self._model

    def plan(self, spec: TrialSpec, snapshot: Snapshot | None, micro_batch: int | None = None) -> MemoryPlan:
        """See `Engine.plan`."""
        return _PLAN

    def admit(self, spec: TrialSpec, snapshot: Snapshot | None, micro_batch: int | None = None) -> MarkedTrial:
        """See `Engine.admit`."""
        rows = spec.data.max_train_examples
        assert rows is not None
        trial = MarkedTrial(
            spec=spec, total_examples=total_examples(rows, spec.parameters.epochs), watch=DivergenceWatch()
        )
        if snapshot is not None:
            state = snapshot.state
            trial.examples_seen, trial.step = state.examples_seen, state.step
            trial.mark = int(state.adapter["mark"][0])
            trial.watch = DivergenceWatch.restore(state.divergence)
        return trial

    def advance(self, trial: MarkedTrial, until_examples: int) -> Generator[Step, None, None]:
        """See `Engine.advance`."""
        parameters = trial.spec.parameters
        while trial.examples_seen < min(until_examples, trial.total_examples):
            time.sleep(self._step_seconds)
            stop = min(trial.examples_seen + parameters.effective_batch, trial.total_examples)
            mark = marked(trial.mark, trial.spec.training.seed, range(trial.examples_seen, stop))
            loss = loss_of(parameters, stop, mark)
            if parameters.learning_rate > LARGEST_LEARNING_RATE and trial.step:
                raise Diverged("the training loss became inf", step=trial.step)
            trial.watch.observe(loss, 1.0)
            seen, trial.examples_seen, trial.mark = trial.examples_seen, stop, mark
            trial.step += 1
            yield Step(
                step=trial.step,
                examples_seen=stop,
                loss=loss,
                gradient_norm=1.0,
                learning_rate=parameters.learning_rate,
                examples=stop - seen,
                tokens=10 * (stop - seen),
                flops=1e6 * (stop - seen),
                recomputed_flops=0.0,
                data_seconds=0.0,
            )

    def evaluate(self, trial: MarkedTrial, part: Judged = "evaluation") -> Generator[BatchWork, None, Evaluation]:
        """See `Engine.evaluate`."""
        time.sleep(self._step_seconds)
        yield BatchWork(10, 10, 100)
        loss = loss_of(trial.spec.parameters, trial.examples_seen, trial.mark)
        return Evaluation(
            loss=loss,
            tokens=10 * _EVALUATION_EXAMPLES,
            example_losses=np.full(_EVALUATION_EXAMPLES, loss, dtype=np.float32),
            example_tokens=np.full(_EVALUATION_EXAMPLES, 10, dtype=np.int32),
        )

    def snapshot(self, trial: MarkedTrial, evaluation: Evaluation | None) -> TrialState:
        """See `Engine.snapshot`."""
        arrays: dict[str, Any] = {"mark": np.array([trial.mark], dtype=np.int64)}
        return TrialState(
            trial_digest=trial.digest,
            base_digest=self.base_digest,
            data_fingerprints=trial.data_fingerprints,
            examples_seen=trial.examples_seen,
            step=trial.step,
            total_examples=trial.total_examples,
            micro_batch=1,
            divergence=trial.watch.state(),
            adapter=arrays,
            adapter_config="{}",
            optimizer=arrays,
            eval_loss=evaluation.loss if evaluation else None,
            eval_tokens=evaluation.tokens if evaluation else None,
            eval_losses=evaluation.tensors() if evaluation else None,
        )

    def halve(self, trial: MarkedTrial) -> bool:
        """Memory never runs out."""
        return False

    def evict(self, trial: MarkedTrial) -> None:
        """Nothing is held."""

    def close(self) -> None:
        """Nothing is held."""
