"""Running one slice: resume, advance to the rung, evaluate, leave a snapshot."""

import math
import time
from collections.abc import Callable, Generator

from trainer.accounting import Meter, memory_bytes
from trainer.devices import device_name
from trainer.engines.base import Step
from trainer.engines.resident import ResidentEngine, ResidentTrial
from trainer.errors import BaseChangedError, Diverged
from trainer.evaluate import Evaluation
from trainer.outcomes import outcome_of
from trainer.residents import Residents, free_memory
from trainer.snapshot import SnapshotStore, newest_first
from trainer.spec import Outcome, Progress, Slice, SliceResult, SnapshotRef
from trainer.trial_log import TrialLog, log_path

_PROGRESS_SECONDS = 0.5


class SliceRun:
    """One attempt of a slice, run in small pieces so that several take turns on one base."""

    def __init__(
        self,
        slice_: Slice,
        residents: Residents,
        store: SnapshotStore,
        send: Callable[[Progress], None],
    ) -> None:
        self.slice = slice_
        self._residents = residents
        self._store = store
        self._send = send
        self._meter = Meter()
        self._stopping = False
        self._trial: ResidentTrial | None = None
        self._resumed_from_examples = 0
        self._discarded: tuple[str, ...] = ()
        self._sent_at = -math.inf
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
            outcome, message = outcome_of(error)
            # The traceback holds the tensors of the failed step.
            error.__traceback__ = None
            return self._failed(outcome, message)
        return None

    def _run(self) -> Generator[None, None, SliceResult]:
        with self._meter.timed("load"):
            engine = self._residents.engine(self.slice.trial.model)
            trial = self._trial = self._admit(engine)
        self._report(trial)
        yield
        with TrialLog(log_path(self._store.root, self.slice.snapshot_dir), *self.slice.token) as log:
            for _ in self._advance(engine, trial, log):
                if self._stopping:
                    return self._preempted(engine, trial)
                yield
        if self._stopping:
            return self._preempted(engine, trial)
        evaluation = yield from self._evaluate(engine, trial)
        if evaluation is None:
            return self._preempted(engine, trial)
        return self._done(engine, trial, evaluation)

    def _admit(self, engine: ResidentEngine) -> ResidentTrial:
        spec, refs = self.slice.trial, newest_first(self.slice.snapshots)
        resident = self._residents.take(spec.digest(), refs[0].digest) if refs else None
        if resident is None:
            snapshot, self._discarded = self._store.newest(refs, spec.digest(), engine.base_digest)
            resident = engine.admit(spec, snapshot)
        self._resumed_from_examples = resident.examples_seen
        return resident

    def _advance(self, engine: ResidentEngine, trial: ResidentTrial, log: TrialLog) -> Generator[None, None, None]:
        settings = self.slice.trial.training
        steps = engine.advance(trial, self.slice.until_examples)
        saved_step, saved_at = trial.step, time.monotonic()
        while True:
            with self._meter.timed("train"):
                step = next(steps, None)
            if step is None:
                return
            self._count(step)
            log.append(step)
            due = step.step - saved_step >= settings.checkpoint_every_steps
            due = due or time.monotonic() - saved_at >= settings.checkpoint_every_seconds
            if due and step.examples_seen < min(self.slice.until_examples, trial.total_examples):
                self._report(trial, self._checkpoint(engine, trial))
                saved_step, saved_at = step.step, time.monotonic()
            self._report(trial)
            yield

    def _evaluate(self, engine: ResidentEngine, trial: ResidentTrial) -> Generator[None, None, Evaluation | None]:
        """The evaluation, or None if a stop came first."""
        batches = engine.evaluate(trial)
        while not self._stopping:
            try:
                with self._meter.timed("evaluate"):
                    batch = next(batches)
            except StopIteration as end:
                evaluation: Evaluation = end.value
                return evaluation
            self._meter.flops += engine.shape.forward_flops(
                trial.adapter_parameters, batch.tokens, batch.squared_tokens
            )
            self._report(trial)
            yield
        return None

    def _done(self, engine: ResidentEngine, trial: ResidentTrial, evaluation: Evaluation) -> SliceResult:
        if not math.isfinite(evaluation.loss):
            raise Diverged(f"the evaluation loss became {evaluation.loss}")
        ref = self._write(engine, trial, f"rung-{trial.examples_seen}", evaluation)
        return self._leave(engine, trial, Outcome.DONE, ref, evaluation)

    def _preempted(self, engine: ResidentEngine, trial: ResidentTrial) -> SliceResult:
        return self._leave(engine, trial, Outcome.PREEMPTED, self._checkpoint(engine, trial), None)

    def _checkpoint(self, engine: ResidentEngine, trial: ResidentTrial) -> SnapshotRef:
        return self._write(engine, trial, f"checkpoint-{trial.examples_seen}", None)

    def _write(
        self, engine: ResidentEngine, trial: ResidentTrial, name: str, evaluation: Evaluation | None
    ) -> SnapshotRef:
        with self._meter.timed("snapshot"):
            state = engine.snapshot(trial, evaluation)
            return self._store.write(f"{self.slice.snapshot_dir}/{name}", state, self._meter.usage())

    def _leave(
        self,
        engine: ResidentEngine,
        trial: ResidentTrial,
        outcome: Outcome,
        ref: SnapshotRef,
        evaluation: Evaluation | None,
    ) -> SliceResult:
        self._trial = None
        with self._meter.timed("load"):
            self._residents.keep(engine, trial, ref.digest)
        return SliceResult(
            slice_id=self.slice.slice_id,
            attempt=self.slice.attempt,
            outcome=outcome,
            examples_seen=trial.examples_seen,
            finished=trial.examples_seen >= trial.total_examples,
            eval_loss=evaluation.loss if evaluation else None,
            eval_tokens=evaluation.tokens if evaluation else None,
            train_loss=trial.recent_loss,
            snapshot=ref,
            resumed_from_examples=self._resumed_from_examples,
            discarded_snapshots=self._discarded,
            usage=self._meter.usage(),
            device=device_name(self._residents.device),
        )

    def _failed(self, outcome: Outcome, message: str) -> SliceResult:
        trial, self._trial = self._trial, None
        if trial is not None:
            self._residents.evict(self._residents.engine(self.slice.trial.model), trial)
        free_memory()
        return SliceResult(
            slice_id=self.slice.slice_id,
            attempt=self.slice.attempt,
            outcome=outcome,
            examples_seen=trial.examples_seen if trial else 0,
            train_loss=trial.recent_loss if trial else None,
            resumed_from_examples=self._resumed_from_examples,
            discarded_snapshots=self._discarded,
            usage=self._meter.usage(),
            device=device_name(self._residents.device),
            message=message,
        )

    def _count(self, step: Step) -> None:
        self._meter.steps += 1
        self._meter.examples += step.examples
        self._meter.tokens += step.tokens
        self._meter.flops += step.flops

    def _report(self, trial: ResidentTrial, checkpoint: SnapshotRef | None = None) -> None:
        now = time.monotonic()
        if checkpoint is None and now - self._sent_at < _PROGRESS_SECONDS:
            return
        self._sent_at = now
        self._send(
            Progress(
                slice_id=self.slice.slice_id,
                attempt=self.slice.attempt,
                examples_seen=trial.examples_seen,
                step=trial.step,
                train_loss=trial.recent_loss,
                tokens_per_second=self._meter.tokens_per_second(),
                memory_bytes=memory_bytes(),
                checkpoint=checkpoint,
            )
        )
