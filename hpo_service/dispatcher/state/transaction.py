"""What the parts of the loop share. All of it belongs to the loop's thread."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from sqlalchemy.orm import Session, sessionmaker

from hpo_service.core.pricing import Prices
from hpo_service.dispatcher.jobs.jobs import Jobs
from hpo_service.dispatcher.lifecycle import confirmation, optuna_notes
from hpo_service.dispatcher.scheduling.fair_share import Usages
from hpo_service.dispatcher.scheduling.proposal_pool import Proposals
from hpo_service.dispatcher.scheduling.quotas import Quotas
from hpo_service.dispatcher.state.assignments import Fleet
from hpo_service.dispatcher.state.clock import DatabaseClock
from hpo_service.dispatcher.state.inbox import Inbox
from hpo_service.dispatcher.state.leadership import Leadership
from hpo_service.dispatcher.state.live_studies import LiveStudy
from hpo_service.dispatcher.telemetry import event_log, spans
from hpo_service.dispatcher.workers.fault_detection import Faults
from hpo_service.dispatcher.workers.progress_timeouts import Liveness
from hpo_service.executors.base import Executor
from hpo_service.storage.queries import dispatch
from trainer.common.failpoints import Commit, after_commit, before_commit


@dataclass(kw_only=True)
class Context:
    """The executor and the database, and what is known of both. `studies` is None before it is read (again)."""

    sessions: sessionmaker[Session]
    executor: Executor
    prices: Prices
    leadership: Leadership
    proposals: Proposals
    clock: DatabaseClock
    mlflow_url: str | None = None  #: that notes link to
    inbox: Inbox = field(default_factory=Inbox)
    fleet: Fleet = field(default_factory=Fleet)
    liveness: Liveness = field(default_factory=Liveness)
    faults: Faults = field(default_factory=Faults)
    usages: Usages = field(default_factory=Usages)
    quotas: Quotas = field(default_factory=Quotas)
    studies: dict[int, LiveStudy] | None = None
    jobs: Jobs = field(default_factory=dict)
    started: bool = False  #: whether the executor was told to start its workers
    taken_over: bool = False  #: whether attempts of earlier dispatchers are accounted for
    draining: bool = False  #: nothing more is placed, and what runs is asked to stop

    def listen(self, timeout_seconds: float) -> None:
        """Take in what the executor reports; call it in every turn, whatever the database does."""
        events = self.executor.poll(timeout_seconds)
        self.liveness.hear(events)
        self.faults.hear(events)
        self.inbox.add(events)

    @contextmanager
    def writing(self, commit: Commit) -> Iterator[Session]:
        """One fenced transaction; Optuna's tables are written last. Failpoints know it as `commit`."""
        self.leadership.hold()  # a turn that the machine delayed must not outlast the lease
        with self.sessions.begin() as session:
            self.leadership.fence(session)
            yield session
            if self.studies is not None:
                confirmation.follow_all(session, self.studies)
                optuna_notes.refresh_all(self.studies)
            session.flush()
            for study in (self.studies or {}).values():
                study.storage.flush(session.connection())
            before_commit(commit)
        after_commit(commit)
        event_log.write(dispatch.take_added_events(session))
        spans.write(session)
