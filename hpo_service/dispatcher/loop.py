"""The one loop that joins API, strategies and workers. The single writer of trial facts."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.dispatcher import confirming, endings, hearing, jobs, placing
from hpo_service.dispatcher.fleet import Fleet, lost_result
from hpo_service.dispatcher.inbox import Inbox
from hpo_service.dispatcher.leader import Leadership
from hpo_service.dispatcher.memory import LiveSlice, LiveStudy, load_studies
from hpo_service.dispatcher.proposals import Proposals
from hpo_service.dispatcher.retention import Retention, StudyNeeds, read_needs
from hpo_service.dispatcher.settling import settle
from hpo_service.dispatcher.tidying import Tidying
from hpo_service.domain import TERMINAL, StudyState, exhausted
from hpo_service.executors.base import Executor
from hpo_service.prices import Prices
from hpo_service.repository import dispatch
from hpo_service.repository.jobs import lose_running
from hpo_service.strategies.base import Advance, Finished, Start
from trainer.spec import Outcome

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.1
_INTENTS_EVERY_SECONDS = 0.15
_STANDBY_SECONDS = 0.5
_LONGEST_OUTAGE_PAUSE_SECONDS = 5.0
_DRAIN_SECONDS = 20.0
_ACTIVE = frozenset({StudyState.QUEUED, StudyState.RUNNING})
_STOP_SLICES = frozenset({StudyState.PAUSING, StudyState.CANCELLING})
_ENDING = _STOP_SLICES | {StudyState.STOPPING}


class Dispatcher:
    """Run it with `run`. One thread owns all state; proposals are computed on another."""

    def __init__(
        self,
        sessions: sessionmaker[Session],
        executor: Executor,
        *,
        snapshots: Path,
        prices: Prices | None = None,
        retention: Retention = Retention(),
    ) -> None:
        self._sessions = sessions
        self._executor = executor
        self._prices = prices or Prices()
        self._leadership = Leadership(sessions)
        self._inbox = Inbox()
        self._fleet = Fleet()
        self._proposals = Proposals(wake=executor.wake)
        self._retention = retention
        self._tidying = Tidying(snapshots, self._snapshot_needs, retention.max_bytes)
        self._studies: dict[int, LiveStudy] | None = None
        self._jobs: jobs.Jobs = {}
        self._taken_over = False
        self._draining = False
        self._intents_at = float("-inf")

    def run(self, stop: Event) -> None:
        """Lead until `stop` is set; then stop what runs at its next step boundary and hand the lease back.

        Raises LeaseLost if another dispatcher took over: the process must end, and its workers with it.
        """
        self._executor.start()
        try:
            while not stop.is_set():
                self._turn_or_wait(stop)
            self._drain()
        finally:
            self._proposals.close()
            self._tidying.close()
            self._executor.close()

    def turn(self) -> None:
        """One round: lead, hear the workers, do what was asked, settle what ended, place what fits."""
        self._inbox.add(self._executor.poll(_POLL_SECONDS))
        if not self._leadership.hold():
            time.sleep(_STANDBY_SECONDS)
            return
        studies = self._load()
        self._tidying.sweep_if_due()
        try:
            self._hear(studies)
            self._stop_unwanted(studies)
            if not self._draining:
                self._place_jobs()
                self._place(studies)
        except BaseException:
            # Memory may be ahead of the database: it is read again before the next decision.
            self._studies = None
            raise

    def _turn_or_wait(self, stop: Event) -> None:
        """Ride out an outage of the database; results wait in the inbox, workers go on."""
        pause_seconds = 0.1
        while not stop.is_set():
            try:
                self.turn()
                return
            except DBAPIError as error:
                self._studies = None
                log.warning("the database does not answer, memory is dropped: %s", str(error).splitlines()[0])
                stop.wait(pause_seconds)
                pause_seconds = min(2 * pause_seconds, _LONGEST_OUTAGE_PAUSE_SECONDS)

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        """One fenced transaction; Optuna's tables are written last, just before the commit."""
        with self._sessions.begin() as session:
            self._leadership.fence(session)
            yield session
            if self._studies is not None:
                confirming.follow_all(session, self._studies)
            session.flush()
            for study in (self._studies or {}).values():
                study.storage.flush(session.connection())

    def _load(self) -> dict[int, LiveStudy]:
        if self._studies is not None:
            return self._studies
        self._proposals.clear()
        with self._sessions.begin() as session:
            self._leadership.fence(session)
            if not self._taken_over and self._leadership.epoch is not None:
                lost = dispatch.lose_attempts(session, self._leadership.epoch, "the dispatcher was restarted")
                lost += lose_running(session)
                log.info("leading with epoch %d; %d attempts of the past are lost", self._leadership.epoch, lost)
            studies = load_studies(session)
            self._jobs = jobs.load_jobs(session)
        self._taken_over = True
        self._studies = studies
        self._catch_up(studies)
        return studies

    def _catch_up(self, studies: dict[int, LiveStudy]) -> None:
        """Attempts that were committed but never reached a worker are lost, through nobody's fault.

        A study that waited for the end of attempts that a take-over lost need not wait any more.
        """
        reason, prices = "the attempt was never handed to a worker", self._prices
        unknown = [
            (study, piece.token)
            for study in studies.values()
            for piece in study.running()
            if not self._fleet.holds(piece.token)
        ]
        unknown_jobs = [job.token for job in self._jobs.values() if job.running and not self._fleet.holds(job.token)]
        ending = [study for study in studies.values() if study.state in _ENDING and not study.running()]
        if unknown or unknown_jobs or ending:
            with self._writing() as session:
                for study, token in unknown:
                    settle(session, study, lost_result(token, reason), prices=prices, blameless=True)
                for token in unknown_jobs:
                    result = jobs.lost(token, reason)
                    jobs.settle(session, self._jobs, [], result, prices=prices, blameless=True)
                for study in ending:
                    endings.conclude(session, study)

    def _hear(self, studies: dict[int, LiveStudy]) -> None:
        intents = self._intents_wait()
        if not (intents or self._inbox.due()):
            return
        assert self._leadership.epoch is not None
        with self._writing() as session:
            registered = hearing.register_workers(
                session, self._inbox, self._fleet, executor=self._executor.name, epoch=self._leadership.epoch
            )
            deleted = hearing.fulfil_intents(session, studies, self._jobs) if intents else set()
            ended = hearing.settle_ended(session, studies, self._jobs, self._inbox, self._fleet, self._prices)
            hearing.note_progress(session, studies, self._inbox)
        self._fleet.worker_ids |= registered
        self._fleet.forget(ended.tokens, self._inbox.gone)
        news = intents or self._inbox.has_news()
        self._inbox.clear()
        self._tidy(ended, deleted)
        if news:
            self._proposals.outdate()
            for study in studies.values():
                study.idle = False
        for study_id in [study.id for study in studies.values() if study.state in TERMINAL]:
            del studies[study_id]

    def _tidy(self, ended: hearing.Ended, deleted: set[int]) -> None:
        for result in ended.settled:
            if result.outcome is Outcome.DONE and result.snapshot is not None:
                self._tidying.rung_reached(result.snapshot)
        for study_id in deleted:
            self._tidying.study_deleted(study_id)

    def _snapshot_needs(self) -> dict[int, StudyNeeds]:
        """Called on the thread that tidies."""
        with self._sessions() as session:
            session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            return read_needs(session, self._retention.keep_best)

    def _intents_wait(self) -> bool:
        if time.monotonic() - self._intents_at < _INTENTS_EVERY_SECONDS:
            return False
        self._intents_at = time.monotonic()
        with self._sessions() as session:
            return bool(dispatch.open_intents(session))

    def _stop_unwanted(self, studies: dict[int, LiveStudy]) -> None:
        """Ask, once, for the end of slices whose study is pausing or cancelling, or of all when draining."""
        for study in studies.values():
            if study.state in _STOP_SLICES or self._draining:
                for piece in study.running():
                    if not piece.stop_sent:
                        piece.stop_sent = True
                        self._executor.stop(piece.token)
        for job in self._jobs.values() if self._draining else ():
            if job.running and not job.stop_sent:
                job.stop_sent = True
                self._executor.stop(job.token)

    def _place_jobs(self) -> None:
        """Oldest first, to any worker without one; they take no slot."""
        for job in [job for job in self._jobs.values() if not job.running]:
            work = job.next_attempt()
            worker = self._executor.choose(work, prefetch=False)
            if worker is None:
                return
            with self._writing() as session:
                jobs.begin(session, job, self._fleet.worker_ids[worker])
            self._fleet.assign(work.token, worker)
            self._executor.submit(work, worker)

    def _place(self, studies: dict[int, LiveStudy]) -> None:
        """Older studies first: fill the free slots with due attempts, then with proposals."""
        self._executor.demand([study.resolved.training.ranks for study in studies.values() if _works(study)])
        self._proposals.retain([study.id for study in studies.values() if _is_placed(study)])
        for study in list(studies.values()):
            if _is_placed(study):
                self._place_study(study)
            if study.state in TERMINAL:
                del studies[study.id]

    def _place_study(self, study: LiveStudy) -> None:
        ranks, most = study.resolved.training.ranks, self._executor.largest_group
        if ranks > most:
            with self._writing() as session:
                endings.fail_study(
                    session,
                    study,
                    f"resources.gpus_per_trial is {ranks} and the {self._executor.name} executor has {most} device(s); "
                    "lower it, or give the dispatcher more (HPO_WORKERS)",
                )
            return
        prefetch = not study.deterministic
        for piece in study.waiting():
            if self._free(study, prefetch):
                self._begin(study, piece, prefetch)
        try:
            proposal = self._proposals.take(study.id)
        except Exception as error:
            log.exception("study %s: no next step could be computed", study.name)
            with self._writing() as session:
                endings.fail_study(session, study, f"no next step could be computed: {error}")
            return
        if proposal is not None and placing.still_valid(study, proposal):
            self._follow(study, proposal, prefetch)
        wants_more = study.state in _ACTIVE and not study.idle and not study.waiting()
        if wants_more and self._free(study, prefetch) and self._within_budget(study):
            self._proposals.request(study, self._slots(study))

    def _follow(self, study: LiveStudy, proposal: placing.Proposal, prefetch: bool) -> None:
        step = proposal.step
        if isinstance(step, Advance | Start):
            if self._free(study, prefetch):
                self._accept(study, proposal, prefetch)
        elif isinstance(step, Finished) and not study.slices:
            with self._writing() as session:
                endings.complete(session, study, step.reason)
        else:
            study.idle = True

    def _free(self, study: LiveStudy, prefetch: bool) -> bool:
        """Whether the study may get another slot now."""
        if len(study.running()) >= study.resolved.budget.max_parallel:
            return False
        free = self._executor.free_slots(prefetch, study.resolved.training.ranks)
        return free > self._proposals.pending_of_others(study.id)

    def _slots(self, study: LiveStudy) -> int:
        """How many slices the study may have running; of a deterministic study it depends on the spec alone."""
        most = study.resolved.budget.max_parallel
        if study.deterministic:
            return most
        running = len(study.running())
        return max(1, min(most, running + self._executor.free_slots(False, study.resolved.training.ranks)))

    def _within_budget(self, study: LiveStudy) -> bool:
        """Whether more may be dispatched; the study stops once its budget is spent."""
        limits = study.resolved.limits()
        now = None
        if limits.deadline is not None:
            with self._sessions() as session:
                now = dispatch.database_now(session)
        reason = exhausted(limits, study.spent, now)
        if reason is None:
            return True
        with self._writing() as session:
            if study.state is StudyState.QUEUED:
                endings.complete(session, study, reason)
            else:
                endings.enter(session, study, StudyState.STOPPING, reason)
                endings.conclude(session, study)
        return False

    def _accept(self, study: LiveStudy, proposal: placing.Proposal, prefetch: bool) -> None:
        step = proposal.step
        assert isinstance(step, Advance | Start)
        with self._writing() as session:
            piece = placing.accept(session, study, proposal)
            placement = self._begin_in(session, study, piece, step, prefetch)
        self._submit(placement)

    def _begin(self, study: LiveStudy, piece: LiveSlice, prefetch: bool) -> None:
        with self._writing() as session:
            placement = self._begin_in(session, study, piece, None, prefetch)
        self._submit(placement)

    def _begin_in(
        self, session: Session, study: LiveStudy, piece: LiveSlice, decision: Advance | Start | None, prefetch: bool
    ) -> placing.Placement:
        worker = self._executor.choose(placing.describe(session, study, piece), prefetch)
        if worker is None:
            raise RuntimeError(f"{self._executor.name} had a free slot and then none for slice {piece.id}")
        worker_id = self._fleet.worker_ids[worker]
        return placing.begin(session, study, piece, worker=worker, worker_id=worker_id, decision=decision)

    def _submit(self, placement: placing.Placement) -> None:
        self._fleet.assign(placement.work.token, placement.worker)
        self._executor.submit(placement.work, placement.worker)

    def _drain(self) -> None:
        """Let what runs stop at its next step boundary, so that its work is not lost; then give the lease back."""
        self._draining = True
        deadline = time.monotonic() + _DRAIN_SECONDS
        try:
            while self._busy():
                if time.monotonic() > deadline:
                    log.warning("slices did not stop within %g s; they are lost", _DRAIN_SECONDS)
                    break
                self.turn()
            self._leadership.release()
        except DBAPIError as error:
            log.warning("the database went away while draining: %s", str(error).splitlines()[0])

    def _busy(self) -> bool:
        """Whether workers hold anything that memory knows of."""
        if self._studies is None:
            return False
        return any(study.running() for study in self._studies.values()) or any(
            job.running for job in self._jobs.values()
        )


def _is_placed(study: LiveStudy) -> bool:
    """Whether the study may get slots."""
    ready = study.optuna_study_id is not None and not study.awaits_check
    return study.state in _ACTIVE and study.searching and ready


def _works(study: LiveStudy) -> bool:
    """Whether the study has slices on workers, or may have some next."""
    wants = study.state in _ACTIVE and study.searching and not study.idle and not study.awaits_check
    return bool(study.running()) or wants
