"""Running one slice: resume, advance to the rung, evaluate, leave a snapshot."""

import logging
import math
import time
from collections.abc import Callable, Generator
from typing import Any

from trainer.accounting import Meter, memory_bytes
from trainer.admission import MemoryPlan, gib
from trainer.data import Judged, require_same_data
from trainer.devices import device_name
from trainer.divergence import divergence_notice
from trainer.engines.base import AdmittedTrial, Engine
from trainer.errors import BaseChangedError, Diverged, MemoryShortage, TrainerError
from trainer.evaluate import Evaluation
from trainer.failpoints import Failpoint, reach
from trainer.memory_record import MemoryRecord
from trainer.outcomes import is_out_of_memory, outcome_of
from trainer.peaks import peak_flops_per_second
from trainer.residents import Residents, free_memory
from trainer.snapshot import Snapshot, SnapshotStore, newest_first
from trainer.snapshot_together import find_together, write_together
from trainer.spec import DataFingerprints, Notice, Outcome, Phase, Progress, Slice, SliceResult, SnapshotRef
from trainer.trial_log import TrialLog

_PROGRESS_SECONDS = 0.5
#: checkpoints of an attempt on disk: the newest, which was read back, and the one before
_KEPT_CHECKPOINTS = 2

_log = logging.getLogger("trainer.worker")


class SliceRun:
    """One attempt of a slice, run in small pieces so that several take turns on one base.

    In a worker group all ranks run it together; what clocks and disks decide, rank 0 decides, and it alone writes.
    `broken` says that this rank failed where the others wait for it: the process must end.
    """

    def __init__(
        self,
        slice_: Slice,
        residents: Residents,
        store: SnapshotStore,
        send: Callable[[Progress], None],
    ) -> None:
        self.slice = slice_
        self.broken = False
        self._residents = residents
        self._ranks = residents.ranks
        self._store = store
        self._send = send
        self._meter = Meter(
            residents.use,
            devices=slice_.trial.training.ranks,
            peak_flops_per_second=peak_flops_per_second(device_name(residents.device), slice_.trial.model.dtype),
        )
        self._notices = list(residents.use.health.look())
        self._stopping = False
        self._trial: AdmittedTrial | None = None
        self._plan: MemoryPlan | None = None
        self._predicted_bytes: int | None = None
        self._record: MemoryRecord | None = None
        self._attention = ""
        self._checkpoints: list[SnapshotRef] = []
        self._resumed_from_examples = 0
        self._discarded: tuple[str, ...] = ()
        self._flops_per_example: float | None = None
        self._test_loss: float | None = None
        self._sent_at = -math.inf
        self._phase: Phase = "starting"
        self._sent_phase: Phase | None = None
        self._slowest_step_seconds = 0.0
        self._pieces = self._run()

    def stop(self) -> None:
        """Ask the run to end with a snapshot at the next step boundary."""
        self._stopping = True

    def tick(self) -> SliceResult | None:
        """Do the next piece of work; the result if that was the last one.

        Whatever goes wrong becomes a result, except BaseChangedError: then no result of this process can be trusted.
        """
        try:
            next(self._pieces)
        except StopIteration as end:
            result: SliceResult = end.value
            return result
        except BaseChangedError:
            raise
        except Exception as error:
            self.broken = self._ranks.size > 1 and not isinstance(error, TrainerError)
            outcome, message = outcome_of(error)
            if isinstance(error, Diverged):
                self._notices.append(divergence_notice(error))
            if isinstance(error, MemoryShortage):
                self._predicted_bytes = error.predicted_bytes
            if outcome is Outcome.INFRA_ERROR and not isinstance(error, TrainerError):
                _log.exception("slice %d, attempt %d", *self.slice.token)
            # The traceback holds the tensors of the failed step.
            error.__traceback__ = None
            return self._failed(outcome, message)
        return None

    def _run(self) -> Generator[None, None, SliceResult]:
        self._report(None)
        with self._meter.timed("load"):
            engine = self._residents.engine(self.slice.trial)
            self._attention = engine.attention
            resident, snapshot = self._find(engine)
            plan = self._plan = resident.plan if resident else engine.plan(self.slice.trial, snapshot)
        while not self._residents.make_room(engine, plan.prediction):
            if resident is not None:
                # While it waits it counts as idle, and may have to leave for another.
                self._residents.keep(engine, resident, newest_first(self.slice.snapshots)[0].digest)
            if self._stopping:
                return never_started(self.slice)
            yield
            if resident is not None:
                with self._meter.timed("load"):
                    resident, snapshot = self._find(engine)
        with self._meter.timed("load"):
            self._record = MemoryRecord(
                self._residents.device, self._meter, plan.prediction, resident=resident is not None
            )
            trial = self._trial = resident or engine.admit(self.slice.trial, snapshot)
            self._require_known_data(trial)
            self._residents.enter(trial)
            self._resumed_from_examples = trial.examples_seen
            left_out = trial.left_out()
            if left_out is not None and not trial.examples_seen:
                self._notices.append(left_out)
        reach(Failpoint.TRIAL_ADMITTED)
        self._report(trial)
        yield
        log_file = self._store.open_log(self.slice.snapshot_dir) if self._ranks.leads else None
        with TrialLog(log_file, *self.slice.token) as log:
            for _ in self._advance(engine, trial, log):
                if self._stopping:
                    return self._preempted(engine, trial)
                yield
        if self._stopping:
            return self._preempted(engine, trial)
        evaluation = yield from self._judge(engine, trial)
        if evaluation is None:
            return self._preempted(engine, trial)
        return self._done(engine, trial, evaluation)

    def _require_known_data(self, trial: AdmittedTrial) -> None:
        """The data are those that the study knows, on every rank. Raises DataError."""
        found, data = trial.data_fingerprints, self.slice.trial.data
        told = DataFingerprints.model_validate_json(self._ranks.tell(found.model_dump_json().encode()))
        self._ranks.attempt(lambda: require_same_data(data, self.slice.data_fingerprints or told, found))

    def _find(self, engine: Engine[Any]) -> tuple[AdmittedTrial | None, Snapshot | None]:
        """The trial if it is resident, else the snapshot to go on from; neither if it begins."""
        spec, refs = self.slice.trial, newest_first(self.slice.snapshots)
        resident = self._residents.take(spec.digest(), refs[0].digest) if refs else None
        if resident is not None:
            return resident, None
        snapshot, self._discarded = find_together(self._store, self._ranks, refs, spec.digest(), engine.base_digest)
        return None, snapshot

    def _advance(self, engine: Engine[Any], trial: AdmittedTrial, log: TrialLog) -> Generator[None, None, None]:
        settings = self.slice.trial.training
        steps = engine.advance(trial, self.slice.until_examples)
        saved_step, saved_at = trial.step, time.monotonic()
        while True:
            try:
                began = time.monotonic()
                with self._meter.timed("train"):
                    step = next(steps, None)
            except Exception as error:
                self._halve(engine, trial, error)
                steps = engine.advance(trial, self.slice.until_examples)
                continue
            if step is None:
                return
            self._phase = "training"
            self._slowest_step_seconds = max(self._slowest_step_seconds, time.monotonic() - began)
            self._meter.count_step(step)
            self._notices.extend(trial.watch.take_spikes())
            log.append(step)
            due = step.step - saved_step >= settings.checkpoint_every_steps
            due = due or self._ranks.decide(time.monotonic() - saved_at >= settings.checkpoint_every_seconds)
            if due and step.examples_seen < min(self.slice.until_examples, trial.total_examples):
                self._report(trial, self._checkpoint(engine, trial))
                saved_step, saved_at = step.step, time.monotonic()
            self._report(trial)
            yield

    def _judge(self, engine: Engine[Any], trial: AdmittedTrial) -> Generator[None, None, Evaluation | None]:
        """The evaluation at the rung, after a trial's last step with its test loss; None if a stop came first."""
        reach(Failpoint.EVALUATE_BEFORE)
        evaluation = yield from self._evaluate(engine, trial)
        if self.slice.trial.data.test is None or trial.examples_seen < trial.total_examples:
            return evaluation
        test = None if evaluation is None else (yield from self._evaluate(engine, trial, "test"))
        if test is None:
            return None
        self._test_loss = test.loss
        return evaluation

    def _evaluate(
        self, engine: Engine[Any], trial: AdmittedTrial, part: Judged = "evaluation"
    ) -> Generator[None, None, Evaluation | None]:
        """The evaluation on these examples, or None if a stop came first."""
        self._phase = "evaluating"
        self._report(trial)
        batches = engine.evaluate(trial, part)
        flops = 0.0
        while not self._stopping:
            try:
                with self._meter.timed("evaluate"):
                    batch = next(batches)
            except StopIteration as end:
                evaluation: Evaluation = end.value
                if part == "evaluation":
                    self._flops_per_example = flops / len(evaluation.example_losses)
                return evaluation
            except Exception as error:
                self._halve(engine, trial, error)
                batches, flops = engine.evaluate(trial, part), 0.0
                continue
            work = {
                "tokens": batch.tokens,
                "learned_tokens": batch.response_tokens,
                "squared_tokens": batch.squared_tokens,
            }
            self._meter.evaluate_flops += engine.shape.forward_flops(trial.adapter_parameters, **work)
            flops += engine.shape.train_flops(trial.adapter_parameters, **work)
            self._report(trial)
            yield
        return None

    def _halve(self, engine: Engine[Any], trial: AdmittedTrial, error: Exception) -> None:
        """After memory ran out, once: half the micro-batch from the step boundary before. Else raises `error`."""
        before = trial.plan
        if not is_out_of_memory(error) or not engine.halve(trial):
            raise error
        # The traceback holds the tensors of the failed step.
        error.__traceback__ = None
        free_memory()
        self._plan = trial.plan
        values = {"micro_batch": float(before.micro_batch), "predicted_bytes": float(before.prediction.total)}
        message = (
            f"out of memory with micro-batch {before.micro_batch}, predicted as {gib(before.prediction.total)}; "
            f"goes on with {trial.plan.micro_batch} at the same effective batch"
        )
        self._notices.append(Notice(kind="oom_halved", step=trial.step, values=values, message=message))

    def _done(self, engine: Engine[Any], trial: AdmittedTrial, evaluation: Evaluation) -> SliceResult:
        if not math.isfinite(evaluation.loss):
            raise Diverged(f"the evaluation loss became {evaluation.loss}", step=trial.step)
        ref = self._write(engine, trial, f"rung-{trial.examples_seen}", evaluation)
        return self._leave(engine, trial, Outcome.DONE, ref, evaluation)

    def _preempted(self, engine: Engine[Any], trial: AdmittedTrial) -> SliceResult:
        return self._leave(engine, trial, Outcome.PREEMPTED, self._checkpoint(engine, trial), None)

    def _checkpoint(self, engine: Engine[Any], trial: AdmittedTrial) -> SnapshotRef:
        """Write a checkpoint; of this attempt's, the one before stays, older ones go."""
        ref = self._write(engine, trial, f"checkpoint-{trial.examples_seen}", None)
        self._checkpoints = [*(old for old in self._checkpoints if old.path != ref.path), ref]
        for old in self._checkpoints[:-_KEPT_CHECKPOINTS] if self._ranks.leads else ():
            self._store.remove(old)
        del self._checkpoints[:-_KEPT_CHECKPOINTS]
        return ref

    def _write(
        self, engine: Engine[Any], trial: AdmittedTrial, name: str, evaluation: Evaluation | None
    ) -> SnapshotRef:
        with self._meter.timed("snapshot"):
            state = engine.snapshot(trial, evaluation)
            path, usage = f"{self.slice.snapshot_dir}/{name}", self._meter.usage()
            return write_together(self._store, self._ranks, path, state, usage)

    def _leave(
        self,
        engine: Engine[Any],
        trial: AdmittedTrial,
        outcome: Outcome,
        ref: SnapshotRef,
        evaluation: Evaluation | None,
    ) -> SliceResult:
        self._trial = None
        with self._meter.timed("load"):
            self._note_memory()
            self._residents.keep(engine, trial, ref.digest)
        return self._result(
            outcome,
            trial,
            finished=trial.examples_seen >= trial.total_examples,
            eval_loss=evaluation.loss if evaluation else None,
            eval_tokens=evaluation.tokens if evaluation else None,
            fold_losses=evaluation.fold_losses() if evaluation else (),
            flops_per_example=self._flops_per_example if evaluation else None,
            adapter_parameters=trial.adapter_parameters,
            test_loss=self._test_loss if evaluation else None,
            snapshot=ref,
        )

    def _failed(self, outcome: Outcome, message: str) -> SliceResult:
        trial, self._trial = self._trial, None
        if outcome is Outcome.OOM and trial is not None:
            predicted, used = trial.plan.prediction.total, self._meter.usage().peak_memory_bytes
            message += (
                f"; with micro-batch {trial.plan.micro_batch} {gib(predicted)} were predicted and {gib(used)} in use"
            )
        if trial is not None and not self.broken:
            self._residents.evict(self._residents.engine(self.slice.trial), trial)
        free_memory()
        return self._result(outcome, trial, message=message)

    def _result(self, outcome: Outcome, trial: AdmittedTrial | None, **fields: Any) -> SliceResult:  # noqa: ANN401
        leak = self._residents.read_memory()
        if leak is not None:
            self._notices.append(leak)
        return SliceResult(
            slice_id=self.slice.slice_id,
            attempt=self.slice.attempt,
            outcome=outcome,
            examples_seen=trial.examples_seen if trial else 0,
            train_loss=trial.recent_loss if trial else None,
            resumed_from_examples=self._resumed_from_examples,
            discarded_snapshots=self._discarded,
            data_fingerprints=trial.data_fingerprints if trial else None,
            usage=self._meter.usage(),
            device=device_name(self._residents.device),
            attention=self._attention,
            micro_batch=self._plan.micro_batch if self._plan else None,
            predicted_memory_bytes=self._plan.prediction.total if self._plan else self._predicted_bytes,
            notices=self._all_notices(),
            **fields,
        )

    def _note_memory(self) -> None:
        """Tell how good the prediction was, if it was measured alone and with the plan that it is of."""
        halved = any(notice.kind == "oom_halved" for notice in self._notices)
        if self._record is not None and not halved and not self._residents.shared:
            notice = self._record.notice()
            if notice is not None:
                self._notices.append(notice)

    def _all_notices(self) -> tuple[Notice, ...]:
        """What was noticed, and what became of the device since the slice started."""
        return (*self._notices, *self._residents.use.health.look())

    def _report(self, trial: AdmittedTrial | None, checkpoint: SnapshotRef | None = None) -> None:
        """Say how far it is, if that was not said just now; `trial` is None before it is admitted."""
        now = time.monotonic()
        moved = checkpoint is not None or self._phase != self._sent_phase
        if not moved and now - self._sent_at < _PROGRESS_SECONDS:
            return
        self._sent_at, self._sent_phase = now, self._phase
        reach(Failpoint.PROGRESS_BEFORE_SEND)
        self._send(
            Progress(
                slice_id=self.slice.slice_id,
                attempt=self.slice.attempt,
                phase=self._phase,
                examples_seen=trial.examples_seen if trial else 0,
                step=trial.step if trial else 0,
                slowest_step_seconds=self._slowest_step_seconds,
                train_loss=trial.recent_loss if trial else None,
                tokens_per_second=self._meter.tokens_per_second(),
                memory_bytes=memory_bytes(),
                checkpoint=checkpoint,
            )
        )
        reach(Failpoint.PROGRESS_AFTER_SEND)


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
