"""What one attempt of a slice has to say: signs of life, what was noticed, and its result."""

import math
import time
from collections.abc import Callable
from typing import Any

from trainer.accounting.devices import device_name
from trainer.accounting.meter import Meter, memory_bytes
from trainer.accounting.peaks import peak_flops_per_second
from trainer.common.errors import Diverged, MemoryShortage
from trainer.common.failpoints import Failpoint, reach
from trainer.memory.micro_batch import MemoryPlan, gib
from trainer.memory.prediction_error import MemoryRecord
from trainer.spec import Notice, Outcome, Phase, Progress, Slice, SliceResult, SnapshotRef
from trainer.training.divergence import divergence_notice
from trainer.training.engines.base import AdmittedTrial
from trainer.worker.repeatability import not_repeatable
from trainer.worker.resident_trials import Residents

_PROGRESS_SECONDS = 0.5


class SliceAccount:
    """Collects what is known of the attempt as it runs. Its public fields are for the run to set."""

    def __init__(self, slice_: Slice, residents: Residents, send: Callable[[Progress], None]) -> None:
        self._dtype = slice_.trial.model.resolved_dtype
        self.meter = Meter(
            residents.use,
            devices=slice_.trial.training.ranks,
            peak_flops_per_second=peak_flops_per_second(device_name(residents.device), self._dtype),
        )
        self.notices = list(residents.use.health.look())
        self.plan: MemoryPlan | None = None
        self.attention = ""
        self.repeatable: bool | None = None
        self.resumed_from_examples = 0
        self.discarded: tuple[str, ...] = ()
        self.flops_per_example: float | None = None
        self.test_loss: float | None = None
        self.phase: Phase = "starting"
        self.slowest_step_seconds = 0.0
        self._slice = slice_
        self._residents = residents
        self._send = send
        self._predicted_bytes: int | None = None
        self._record: MemoryRecord | None = None
        self._sent_at = -math.inf
        self._sent_phase: Phase | None = None

    def expect_memory(self, plan: MemoryPlan, *, resident: bool) -> None:
        """From now on the attempt's memory is measured, to be compared with what was predicted."""
        self._record = MemoryRecord(self._residents.device, self.meter, plan.prediction, resident=resident)

    def note_repeatable(self, verdict: bool | None) -> None:
        """Whether a step that was taken twice was the same; None: it was not taken twice."""
        if verdict is not None:
            self.repeatable = verdict
        if verdict is False:
            self.notices.append(not_repeatable(device_name(self._residents.device)))

    def note_memory(self) -> None:
        """Tell how good the prediction was, if it was measured alone and with the plan that it is of."""
        halved = any(notice.kind == "oom_halved" for notice in self.notices)
        if self._record is not None and not halved and not self._residents.shared:
            notice = self._record.notice()
            if notice is not None:
                self.notices.append(notice)

    def note_halved(self, before: MemoryPlan, trial: AdmittedTrial) -> None:
        """Memory ran out under the plan `before`; `trial` has its new one."""
        self.plan = trial.plan
        values = {"micro_batch": float(before.micro_batch), "predicted_bytes": float(before.prediction.total)}
        message = (
            f"out of memory with micro-batch {before.micro_batch}, predicted as {gib(before.prediction.total)}; "
            f"goes on with {trial.plan.micro_batch} at the same effective batch"
        )
        self.notices.append(Notice(kind="oom_halved", step=trial.step, values=values, message=message))

    def note_failure(self, error: Exception) -> None:
        """What `error`, which ends the attempt, knows beside its sentence."""
        if isinstance(error, Diverged):
            self.notices.append(divergence_notice(error))
        if isinstance(error, MemoryShortage):
            self._predicted_bytes = error.predicted_bytes

    def report(self, trial: AdmittedTrial | None, checkpoint: SnapshotRef | None = None) -> None:
        """Say how far it is, if that was not said just now; `trial` is None before it is admitted."""
        now = time.monotonic()
        moved = checkpoint is not None or self.phase != self._sent_phase
        if not moved and now - self._sent_at < _PROGRESS_SECONDS:
            return
        self._sent_at, self._sent_phase = now, self.phase
        reach(Failpoint.PROGRESS_BEFORE_SEND)
        self._send(
            Progress(
                slice_id=self._slice.slice_id,
                attempt=self._slice.attempt,
                phase=self.phase,
                examples_seen=trial.examples_seen if trial else 0,
                step=trial.step if trial else 0,
                slowest_step_seconds=self.slowest_step_seconds,
                train_loss=trial.recent_loss if trial else None,
                tokens_per_second=self.meter.tokens_per_second(),
                memory_bytes=memory_bytes(),
                checkpoint=checkpoint,
            )
        )
        reach(Failpoint.PROGRESS_AFTER_SEND)

    def failed(self, outcome: Outcome, message: str, trial: AdmittedTrial | None) -> SliceResult:
        """The result of an attempt that left nothing; of memory that ran out, with what was predicted."""
        if outcome is Outcome.OOM and trial is not None:
            message += f"{_predicted(trial.plan)} and {gib(self.meter.usage().peak_memory_bytes)} in use"
        return self.result(outcome, trial, message=message)

    def abandoned(self, outcome: Outcome, message: str) -> SliceResult:
        """The result if the process ends now, in the middle of things. May be called on another thread."""
        plan = self.plan
        if outcome is Outcome.OOM and plan is not None:
            message += _predicted(plan)
        known = {
            "device": device_name(self._residents.device),
            "dtype": self._dtype,
            "attention": self.attention,
            "micro_batch": plan.micro_batch if plan else None,
            "predicted_memory_bytes": plan.prediction.total if plan else None,
        }
        return abandoned(self._slice, outcome, message).model_copy(update=known)

    def result(self, outcome: Outcome, trial: AdmittedTrial | None, **fields: Any) -> SliceResult:  # noqa: ANN401
        """The result with all that was collected; `fields` are what the outcome adds."""
        leak = self._residents.read_memory()
        if leak is not None:
            self.notices.append(leak)
        return SliceResult(
            slice_id=self._slice.slice_id,
            attempt=self._slice.attempt,
            outcome=outcome,
            examples_seen=trial.examples_seen if trial else 0,
            train_loss=trial.recent_loss if trial else None,
            resumed_from_examples=self.resumed_from_examples,
            discarded_snapshots=self.discarded,
            data_fingerprints=trial.data_fingerprints if trial else None,
            usage=self.meter.usage(),
            device=device_name(self._residents.device),
            dtype=self._dtype,
            attention=self.attention,
            micro_batch=self.plan.micro_batch if self.plan else None,
            predicted_memory_bytes=self.plan.prediction.total if self.plan else self._predicted_bytes,
            repeatable=self.repeatable,
            notices=(*self.notices, *self._residents.use.health.look()),
            **fields,
        )


def _predicted(plan: MemoryPlan) -> str:
    return f"; with micro-batch {plan.micro_batch} {gib(plan.prediction.total)} were predicted"


def never_started(slice_: Slice) -> SliceResult:
    """The result of a slice that was stopped before it started: the trial is where it was."""
    return abandoned(slice_, Outcome.PREEMPTED, "the slice was stopped before it started")


def abandoned(slice_: Slice, outcome: Outcome, message: str) -> SliceResult:
    """The result of a slice of which nothing is left: the trial is where it was."""
    newest = max(slice_.snapshots, key=lambda ref: ref.examples_seen, default=None)
    examples_seen = newest.examples_seen if newest else 0
    return SliceResult(
        slice_id=slice_.slice_id,
        attempt=slice_.attempt,
        outcome=outcome,
        examples_seen=examples_seen,
        resumed_from_examples=examples_seen,
        snapshot=newest,
        message=message,
    )
