"""The one loop that joins API, strategies and workers. The single writer of trial facts."""

import logging
import time
from pathlib import Path
from threading import Event

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.core.pricing import Prices
from hpo_service.core.study_rules import TERMINAL, StudyState
from hpo_service.dispatcher import recovery
from hpo_service.dispatcher.jobs import deliveries
from hpo_service.dispatcher.scheduling import budget_caps, forecasts, scheduler
from hpo_service.dispatcher.scheduling.proposal_pool import Proposals
from hpo_service.dispatcher.snapshots.garbage_collection import Tidying
from hpo_service.dispatcher.snapshots.retention import Retention, StudyNeeds, read_needs
from hpo_service.dispatcher.state.clock import DatabaseClock
from hpo_service.dispatcher.state.leadership import Leadership
from hpo_service.dispatcher.state.live_studies import LiveStudy
from hpo_service.dispatcher.state.transaction import Context
from hpo_service.dispatcher.turn import Asked, Ended, fulfil_intents, note_progress, register_workers, settle_ended
from hpo_service.dispatcher.workers import kill_hung, quarantine
from hpo_service.dispatcher.workers.progress_timeouts import Liveness, Patience
from hpo_service.dispatcher.workers.store_probe import StoreProof
from hpo_service.executors.base import Executor
from hpo_service.storage.queries import dispatch, tenants
from trainer.common.failpoints import Commit
from trainer.snapshots.stores import open_store
from trainer.spec import Outcome

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.1
_INTENTS_EVERY_SECONDS = 0.15
_STANDBY_SECONDS = 0.5
_LONGEST_OUTAGE_PAUSE_SECONDS = 5.0
_DRAIN_SECONDS = 20.0
_ALIVE_EVERY_SECONDS = 1.0
_STOP_SLICES = frozenset({StudyState.PAUSING, StudyState.CANCELLING})


class Dispatcher:
    """Run it with `run`. One thread owns all state; proposals are computed on another."""

    def __init__(
        self,
        sessions: sessionmaker[Session],
        executor: Executor,
        *,
        snapshots: str | Path,
        must_see_store: bool = False,
        patience: Patience = Patience(),
        prices: Prices | None = None,
        retention: Retention = Retention(),
        alive_file: Path | None = None,
        mlflow_url: str | None = None,
    ) -> None:
        self.context = Context(
            sessions=sessions,
            executor=executor,
            prices=prices or Prices(),
            leadership=Leadership(sessions),
            proposals=Proposals(wake=executor.wake),
            clock=DatabaseClock(sessions),
            mlflow_url=mlflow_url,
            liveness=Liveness(patience),
        )
        self._retention = retention
        store = open_store(snapshots)
        self._tidying = Tidying(store, self._snapshot_needs, retention.max_bytes)
        self._proof = StoreProof(store if must_see_store else None)
        self._intents_at = float("-inf")
        self._alive_file = alive_file
        self._alive_at = float("-inf")

    def run(self, stop: Event) -> None:
        """Lead until `stop` is set; then stop what runs at its next step boundary and hand the lease back.

        Raises LeaseLost if another dispatcher took over: the process must end, and its workers with it.
        """
        try:
            while not stop.is_set():
                self._turn_or_wait(stop)
            self._drain()
        finally:
            self.context.proposals.close()
            self._tidying.close()
            self.context.executor.close()

    def turn(self) -> None:
        """One round: lead, hear the workers, do what was asked, settle what ended, place what fits."""
        context = self.context
        context.listen(_POLL_SECONDS)
        if not context.leadership.hold():
            time.sleep(_STANDBY_SECONDS)
            return
        self._proof.leave(context.leadership.epoch)
        studies = recovery.load(context)
        self._tidying.sweep_if_due()
        try:
            self._account()
            self._hear(studies)
            budget_caps.stop_at_caps(context, studies)
            self._stop_unwanted(studies)
            kill_hung.end_hung(context)
            if not context.draining:
                scheduler.fill(context, studies)
        except BaseException:
            # Memory may be ahead of the database: it is read again before the next decision.
            context.studies = None
            raise

    def _turn_or_wait(self, stop: Event) -> None:
        """Ride out an outage of the database; results wait in the inbox, workers go on."""
        pause_seconds = 0.1
        while not stop.is_set():
            self._show_alive()
            try:
                self.turn()
                return
            except DBAPIError as error:
                self.context.studies = None
                log.warning("the database does not answer, memory is dropped: %s", str(error).splitlines()[0])
                stop.wait(pause_seconds)
                pause_seconds = min(2 * pause_seconds, _LONGEST_OUTAGE_PAUSE_SECONDS)

    def _show_alive(self) -> None:
        """Touch the file that a probe looks at: also while standing by, and while the database is away."""
        if self._alive_file is not None and time.monotonic() - self._alive_at > _ALIVE_EVERY_SECONDS:
            self._alive_at = time.monotonic()
            self._alive_file.touch()

    def _hear(self, studies: dict[int, LiveStudy]) -> None:
        context = self.context
        intents = self._intents_wait()
        if not (intents or context.inbox.due()):
            return
        assert context.leadership.epoch is not None
        ends = bool(context.inbox.reported() or context.inbox.gone)
        with context.writing(Commit.SETTLE if ends else Commit.HEAR) as session:
            registered = register_workers(
                session,
                context.inbox,
                context.fleet,
                executor=context.executor.name,
                epoch=context.leadership.epoch,
                refused=self._proof.refusals(context.inbox.ready),
            )
            self._proof.note(session, context.inbox.ready)
            orders = quarantine.write_faults(session, context, studies.values(), registered)
            asked = fulfil_intents(session, context, studies) if intents else Asked()
            ended = settle_ended(session, context, studies, registered)
            note_progress(session, studies, context.inbox, context.jobs)
            forecasts.write_due(session, context, studies)
        self._proof.end_refused(context.executor, context.inbox.ready)
        context.fleet.worker_ids |= registered
        context.fleet.note_ready(context.inbox.ready)
        context.fleet.forget(ended.tokens, context.inbox.gone)
        context.liveness.forget(ended.tokens)
        context.executor.taken(ended.tokens)
        quarantine.carry_out(context, [*orders, *asked.orders])
        self._tell_proposals(studies)
        context.inbox.clear()
        self._tidy(ended, asked.deleted)
        for study_id in [study.id for study in studies.values() if study.state in TERMINAL]:
            del studies[study_id]

    def _account(self) -> None:
        """Write what the snapshots take, after they were looked at."""
        left = self._tidying.take_left()
        if left is not None:
            with self.context.writing(Commit.ACCOUNT) as session:
                tenants.note_stored(session, left)

    def _tell_proposals(self, studies: dict[int, LiveStudy]) -> None:
        """Results and intents are news for their study; workers and jobs for all."""
        inbox = self.context.inbox
        for study in studies.values():
            if inbox.ready or inbox.gone or inbox.job_results:
                study.news()
            if study.heard:
                study.heard = False
                self.context.proposals.outdate(study.id)

    def _tidy(self, ended: Ended, deleted: set[int]) -> None:
        for result in ended.settled:
            if result.outcome is Outcome.DONE and result.snapshot is not None:
                self._tidying.keep_only(result.snapshot.path)
        for job in ended.jobs:
            if (kept := deliveries.kept_path(job)) is not None:
                self._tidying.keep_only(kept)
        for study_id in deleted:
            self._tidying.study_deleted(study_id)

    def _snapshot_needs(self) -> dict[int, StudyNeeds]:
        """Called on the thread that tidies."""
        with self.context.sessions() as session:
            session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            return read_needs(session, self._retention.keep_best)

    def _intents_wait(self) -> bool:
        if time.monotonic() - self._intents_at < _INTENTS_EVERY_SECONDS:
            return False
        self._intents_at = time.monotonic()
        with self.context.sessions() as session:
            return bool(dispatch.open_intents(session))

    def _stop_unwanted(self, studies: dict[int, LiveStudy]) -> None:
        """Ask, once, for the end of slices whose study is pausing, cancelling or at a cap, or of all when draining."""
        context = self.context
        for study in studies.values():
            if study.state in _STOP_SLICES or study.capped or context.draining:
                for piece in study.running():
                    if not piece.stop_sent:
                        piece.stop_sent = True
                        context.executor.stop(piece.token)
        for job in context.jobs.values() if context.draining else ():
            if job.running and not job.stop_sent:
                job.stop_sent = True
                context.executor.stop(job.token)

    def _drain(self) -> None:
        """Let what runs stop at its next step boundary, so that its work is not lost; then give the lease back.

        Workers that last go on.
        """
        self.context.draining = not self.context.executor.lasting
        deadline = time.monotonic() + _DRAIN_SECONDS
        try:
            while self.context.draining and self._busy():
                if time.monotonic() > deadline:
                    log.warning("slices did not stop within %g s; they are lost", _DRAIN_SECONDS)
                    break
                self.turn()
            self.context.leadership.release()
        except DBAPIError as error:
            log.warning("the database went away while draining: %s", str(error).splitlines()[0])

    def _busy(self) -> bool:
        """Whether workers hold anything that memory knows of."""
        if self.context.studies is None:
            return False
        return any(study.running() for study in self.context.studies.values()) or any(
            job.running for job in self.context.jobs.values()
        )
