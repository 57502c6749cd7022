"""Running one slice: resume, advance to the rung, evaluate, leave a snapshot."""

import logging
import math
import time
from collections.abc import Callable, Generator
from typing import Any

import torch

from trainer.accounting.devices import allow_unrepeatable_kernels, auto_dtype, lacks_repeatable_kernel
from trainer.common.errors import BaseChangedError, Diverged, TrainerError
from trainer.common.failpoints import Failpoint, reach
from trainer.common.outcomes import is_out_of_memory, outcome_of
from trainer.data.dataset import Judged, require_same_data
from trainer.snapshots.snapshot import Snapshot, SnapshotStore, newest_first
from trainer.snapshots.snapshot_together import find_together, write_together
from trainer.spec import DataFingerprints, Outcome, Progress, Slice, SliceResult, SnapshotRef
from trainer.training.engines.base import AdmittedTrial, Engine
from trainer.training.evaluate import Evaluation
from trainer.worker.resident_trials import Residents, free_memory
from trainer.worker.slice_report import SliceAccount, never_started
from trainer.worker.trial_log import TrialLog

#: checkpoints of an attempt on disk: the newest, which was read back, and the one before
_KEPT_CHECKPOINTS = 2

_log = logging.getLogger("trainer.worker")


def resolved(slice_: Slice, device: torch.device) -> Slice:
    """The slice as this device runs it: with `model.dtype: auto` resolved, which the service has done before."""
    return slice_.model_copy(update={"trial": slice_.trial.in_dtype(auto_dtype(device))})


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
        self._account = SliceAccount(slice_, residents, send)
        self._meter = self._account.meter
        self._residents = residents
        self._ranks = residents.ranks
        self._store = store
        self._stopping = False
        self._trial: AdmittedTrial | None = None
        self._checkpoints: list[SnapshotRef] = []
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
            self._account.note_failure(error)
            if outcome is Outcome.INFRA_ERROR and not isinstance(error, TrainerError):
                _log.exception("slice %d, attempt %d", *self.slice.token)
            # The traceback holds the tensors of the failed step.
            error.__traceback__ = None
            return self._failed(outcome, message)
        return None

    def abandoned(self, outcome: Outcome, message: str) -> SliceResult:
        """How the attempt ends if this process does now. May be called on another thread."""
        return self._account.abandoned(outcome, message)

    def _run(self) -> Generator[None, None, SliceResult]:
        account = self._account
        account.report(None)
        with self._meter.timed("load"):
            engine = self._residents.engine(self.slice.trial)
            account.attention = engine.attention
            resident, snapshot = self._find(engine)
            plan = account.plan = (
                resident.plan if resident else engine.plan(self.slice.trial, snapshot, self.slice.micro_batch)
            )
            account.note_repeatable(self._residents.repeats(engine, self.slice.trial, plan.micro_batch))
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
            account.expect_memory(plan, resident=resident is not None)
            trial = self._trial = resident or engine.admit(self.slice.trial, snapshot, self.slice.micro_batch)
            self._require_known_data(trial)
            self._residents.enter(trial)
            account.resumed_from_examples = trial.examples_seen
            left_out = trial.left_out()
            if left_out is not None and not trial.examples_seen:
                account.notices.append(left_out)
        reach(Failpoint.TRIAL_ADMITTED)
        account.report(trial)
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
        if resident is not None and self._may_stay(resident):
            return resident, None
        if resident is not None:
            self._residents.evict(engine, resident)
        snapshot, self._account.discarded = find_together(
            self._store, self._ranks, refs, spec.digest(), engine.base_digest
        )
        return None, snapshot

    def _may_stay(self, resident: AdmittedTrial) -> bool:
        """Whether it has the rows that are asked for, and takes no more of them at once than memory is known to allow.

        Test rows are no part of a trial's digest: the search leaves them out, a delivery of the same trial does not.
        What memory allows another worker may have found out.
        """
        if resident.spec.data != self.slice.trial.data:
            return False
        most = self.slice.micro_batch
        return most is None or resident.plan.micro_batch <= most

    def _advance(self, engine: Engine[Any], trial: AdmittedTrial, log: TrialLog) -> Generator[None, None, None]:
        settings, account = self.slice.trial.training, self._account
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
            account.phase = "training"
            account.slowest_step_seconds = max(account.slowest_step_seconds, time.monotonic() - began)
            self._meter.count_step(step)
            account.notices.extend(trial.watch.take_spikes())
            log.append(step)
            due = step.step - saved_step >= settings.checkpoint_every_steps
            due = due or self._ranks.decide(time.monotonic() - saved_at >= settings.checkpoint_every_seconds)
            if due and step.examples_seen < min(self.slice.until_examples, trial.total_examples):
                account.report(trial, self._checkpoint(engine, trial))
                saved_step, saved_at = step.step, time.monotonic()
            account.report(trial)
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
        self._account.test_loss = test.loss
        return evaluation

    def _evaluate(
        self, engine: Engine[Any], trial: AdmittedTrial, part: Judged = "evaluation"
    ) -> Generator[None, None, Evaluation | None]:
        """The evaluation on these examples, or None if a stop came first."""
        self._account.phase = "evaluating"
        self._account.report(trial)
        batches = engine.evaluate(trial, part)
        flops = 0.0
        while not self._stopping:
            try:
                with self._meter.timed("evaluate"):
                    batch = next(batches)
            except StopIteration as end:
                evaluation: Evaluation = end.value
                if part == "evaluation":
                    self._account.flops_per_example = flops / len(evaluation.example_losses)
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
            self._account.report(trial)
            yield
        return None

    def _halve(self, engine: Engine[Any], trial: AdmittedTrial, error: Exception) -> None:
        """After memory ran out, once: half the micro-batch from the step boundary before. Else raises `error`.

        What has no repeatable kernel is done by another one from then on, and told.
        """
        if self._ranks.size == 1 and lacks_repeatable_kernel(error):
            allow_unrepeatable_kernels(error)
            self._account.note_repeatable(False)
            return
        before = trial.plan
        if not is_out_of_memory(error) or not engine.halve(trial):
            raise error
        # The traceback holds the tensors of the failed step.
        error.__traceback__ = None
        free_memory()
        self._account.note_halved(before, trial)

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
        finished = trial.examples_seen >= trial.total_examples
        with self._meter.timed("load"):
            self._account.note_memory()
            self._residents.keep(engine, trial, ref.digest)
            files = self._store.files(ref) if finished and evaluation and self._ranks.leads else {}
        return self._account.result(
            outcome,
            trial,
            finished=finished,
            eval_loss=evaluation.loss if evaluation else None,
            eval_tokens=evaluation.tokens if evaluation else None,
            fold_losses=evaluation.fold_losses() if evaluation else (),
            flops_per_example=self._account.flops_per_example if evaluation else None,
            adapter_parameters=trial.adapter_parameters,
            test_loss=self._account.test_loss if evaluation else None,
            snapshot=ref,
            snapshot_files=files,
        )

    def _failed(self, outcome: Outcome, message: str) -> SliceResult:
        trial, self._trial = self._trial, None
        if trial is not None and not self.broken:
            self._residents.evict(self._residents.engine(self.slice.trial), trial)
        free_memory()
        return self._account.failed(outcome, message, trial)
