"""What the dispatcher does about workers that die, stand still or are faulty, with the fake executor."""

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.core.messages import IntentKind
from hpo_service.core.study_rules import Cause
from hpo_service.dispatcher.loop import Dispatcher
from hpo_service.dispatcher.workers.progress_timeouts import Liveness, Patience
from hpo_service.executors.base import SliceProgress
from hpo_service.executors.fake import FakeExecutor
from hpo_service.storage.tables import DEFAULT_PROJECT_ID, Attempt, Event, Intent, Slice, Worker
from tests.dispatching import events_of, loss_of, make, optuna_trials, post_study, state_of, turn_until
from trainer.spec import Notice, Outcome, Phase, Progress, SliceResult
from trainer.spec import Slice as Work

Sessions = sessionmaker[Session]
PATIENCE = Patience(floor_seconds=10.0, start_seconds=100.0)
BROKEN_DISK = "OSError: the disk is broken"


class Clock:
    """Turned by the test."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class Rig:
    """A dispatcher with a fake executor whose slices are held."""

    def __init__(self, sessions: Sessions, *, workers: int = 1, slots: int = 1) -> None:
        self.sessions = sessions
        self.clock = Clock()
        self.dispatcher, self.fake = make(sessions, FakeExecutor(loss_of, workers=workers, slots=slots))
        self.dispatcher.context.liveness = Liveness(PATIENCE, self.clock)
        self.fake.hold = True

    def until(self, condition: Callable[[], bool]) -> None:
        turn_until(self.dispatcher, condition)

    def until_submitted(self, count: int) -> Work:
        self.until(lambda: len(self.fake.submitted) >= count)
        return self.fake.submitted[count - 1]

    def say(self, work: Work, phase: Phase = "training", worker: str = "fake-0") -> None:
        progress = Progress(
            slice_id=work.slice_id,
            attempt=work.attempt,
            phase=phase,
            examples_seen=24,
            step=3,
            slowest_step_seconds=0.1,
            train_loss=None,
            tokens_per_second=1.0,
            memory_bytes=1,
        )
        self.fake.send_progress(SliceProgress(worker=worker, progress=progress))
        self.dispatcher.turn()

    def passes(self, seconds: float) -> None:
        """A turn a second."""
        for _ in range(round(seconds)):
            self.clock.seconds += 1
            self.dispatcher.turn()

    def finish(self, study_id: int) -> None:
        self.fake.hold = False
        self.until(lambda: state_of(self.sessions, study_id) == "completed")

    def attempts(self) -> list[Attempt]:
        with self.sessions() as session:
            return list(session.scalars(select(Attempt).order_by(Attempt.slice_id, Attempt.attempt)))

    def worker(self, name: str) -> Worker:
        with self.sessions() as session:
            return session.scalars(select(Worker).where(Worker.name == name)).one()

    def service_events(self) -> list[Event]:
        with self.sessions() as session:
            return list(session.scalars(select(Event).where(Event.study_id.is_(None)).order_by(Event.id)))

    def ask(self, kind: IntentKind, worker: str) -> None:
        with self.sessions.begin() as session:
            payload = {"worker": worker, "reason": "because"}
            session.add(Intent(project_id=DEFAULT_PROJECT_ID, kind=str(kind), payload=payload))

    def errors(self) -> Sequence[str | None]:
        with self.sessions() as session:
            return session.scalars(select(Intent.error).where(Intent.study_id.is_(None))).all()


def kinds(events: Sequence[Event]) -> list[str]:
    return [event.kind for event in events]


def test_a_worker_that_stands_still_is_killed_and_its_slice_goes_on(sessions: Sessions) -> None:
    study_id = post_study(sessions)
    rig = Rig(sessions)
    work = rig.until_submitted(1)
    rig.say(work)
    rig.passes(9)
    assert rig.fake.workers() == ["fake-0"]
    rig.passes(4)
    again = rig.until_submitted(2)
    assert again.token == (work.slice_id, 2)
    assert again.alone
    assert rig.fake.workers() == ["fake-1"]
    lost = rig.attempts()[0]
    assert (lost.outcome, lost.cause) == ("lost", "no_progress")
    assert "worker fake-0 made no progress for 11 s training slice" in lost.message
    assert "last heard of training at 24 examples (step 3)" in lost.message
    with sessions() as session:
        row = session.scalars(select(Slice)).one()
        assert (row.failures, row.failures_by_cause) == (1, {"no_progress": 1})
    assert kinds(rig.service_events()) == ["dispatcher.took_over", "worker.lost"]
    (retried,) = [event for event in events_of(sessions, study_id) if event.kind == "slice.retried"]
    assert retried.payload["cause"] == "no_progress"
    rig.finish(study_id)


def test_a_dispatcher_that_stood_still_itself_kills_nobody(sessions: Sessions) -> None:
    post_study(sessions, search__deterministic=False)
    rig = Rig(sessions, workers=2)
    rig.until_submitted(2)
    for work, worker in zip(rig.fake.submitted[:2], ("fake-0", "fake-1"), strict=True):
        rig.say(work, worker=worker)
    rig.clock.seconds += 3600
    rig.dispatcher.turn()
    rig.passes(5)
    assert rig.fake.workers() == ["fake-0", "fake-1"]


def test_a_slice_that_ends_two_workers_is_poison_and_its_trial_fails_with_the_evidence(
    sessions: Sessions, database_url: str
) -> None:
    study_id = post_study(sessions)
    rig = Rig(sessions)
    for attempt in (1, 2):
        work = rig.until_submitted(attempt)
        assert work.attempt == attempt
        rig.say(work, worker=rig.fake.workers()[0])
        rig.fake.kill(rig.fake.workers()[0], f"worker ended with signal SIGSEGV, {attempt}")
    rig.finish(study_id)
    trials = optuna_trials(database_url)
    assert trials[0].state is TrialState.FAIL
    message = trials[0].user_attrs["message"]
    assert "is poison, 2 workers ended while they ran it" in message
    for evidence in ("attempt 1 on fake-0 at 20", "attempt 2 on fake-1 at 20", "SIGSEGV, 2", "at 24 examples"):
        assert evidence in message
    assert any(trial.state is TrialState.COMPLETE for trial in trials)


def test_an_innocent_neighbour_is_retried_alone_and_not_poison(sessions: Sessions, database_url: str) -> None:
    """Two run together when their worker dies; each then has a worker for itself, and one of them ends it again."""
    study_id = post_study(sessions, search__deterministic=False, budget__max_trials=2)
    rig = Rig(sessions, slots=2)
    rig.until_submitted(2)
    poison, innocent = rig.fake.submitted[:2]
    for work in (poison, innocent):
        rig.say(work)
    rig.fake.kill("fake-0")
    again = rig.until_submitted(3)
    assert again.alone
    rig.passes(3)
    assert len(rig.fake.submitted) == 3, "the other one waits until the worker is free"
    rig.say(again, worker="fake-1")
    rig.fake.kill("fake-1")
    last = rig.until_submitted(4)
    assert {again.slice_id, last.slice_id} == {poison.slice_id, innocent.slice_id}
    rig.finish(study_id)
    states = {trial.number: trial.state for trial in optuna_trials(database_url)}
    assert sorted(state.name for state in states.values()) in (["COMPLETE", "FAIL"], ["FAIL", "PRUNED"])
    assert {attempt.cause for attempt in rig.attempts()} == {"worker_died", None}


def test_a_queued_slice_is_not_to_blame_for_the_death_of_its_worker(sessions: Sessions) -> None:
    post_study(sessions, search__deterministic=False)
    rig = Rig(sessions)
    rig.until_submitted(2)
    running, queued = rig.fake.submitted[:2]
    rig.say(running)
    rig.fake.kill("fake-0")
    rig.until_submitted(3)
    causes = {attempt.slice_id: attempt.cause for attempt in rig.attempts() if attempt.attempt == 1}
    assert causes == {running.slice_id: "worker_died", queued.slice_id: "never_sent"}
    with sessions() as session:
        failures = {row.id: row.failures for row in session.scalars(select(Slice))}
    assert failures[queued.slice_id] == 0


def test_a_faulty_gpu_is_quarantined_until_it_is_released(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    study_id = post_study(sessions, search__deterministic=False)
    rig = Rig(sessions, slots=2)
    rig.until_submitted(3)
    broken, neighbour, _ = rig.fake.submitted[:3]
    for work in (broken, neighbour):
        rig.say(work)
    end(rig, monkeypatch, broken, Outcome.INFRA_ERROR, Notice(kind="device_health", values={"fault_xid": 79.0}))
    rig.until(lambda: rig.fake.workers() == [])
    rig.dispatcher.turn()
    worker = rig.worker("fake-0")
    assert (worker.state, worker.places, worker.node) == ("quarantined", ["fake/0"], "fake")
    assert "its device is faulty" in worker.message
    causes = {attempt.slice_id: attempt.cause for attempt in rig.attempts() if attempt.attempt == 1}
    assert causes[broken.slice_id] == causes[neighbour.slice_id] == Cause.GPU_FAULT
    with sessions() as session:
        assert {row.failures for row in session.scalars(select(Slice))} == {0}
    assert "worker.quarantined" in kinds(rig.service_events())
    assert "worker.quarantined" in kinds(events_of(sessions, study_id))
    rig.passes(3)
    assert rig.fake.workers() == []
    rig.ask(IntentKind.WORKER_RELEASE, "fake-0")
    rig.until(lambda: rig.fake.workers() != [])
    assert rig.worker("fake-0").state == "gone"
    assert kinds(rig.service_events())[-1] == "worker.released"
    rig.finish(study_id)


def test_a_quarantine_survives_the_dispatcher(sessions: Sessions) -> None:
    rig = Rig(sessions, workers=2)
    rig.until(lambda: len(rig.dispatcher.context.fleet.worker_ids) == 2)
    rig.ask(IntentKind.WORKER_QUARANTINE, "fake-1")
    rig.until(lambda: rig.fake.workers() == ["fake-0"])
    rig.dispatcher.context.leadership.release()
    fake = FakeExecutor(loss_of, workers=2)
    other = Dispatcher(sessions, fake, snapshots=Path("/nonexistent"))
    turn_until(other, lambda: len(other.context.fleet.worker_ids) == 1)
    assert fake.workers() == ["fake-0"]
    assert kinds(rig.service_events()).count("dispatcher.took_over") == 2


def test_a_worker_on_which_everything_breaks_is_quarantined_while_others_work(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    study_id = post_study(sessions, search__deterministic=False, budget__max_trials=30)
    rig = Rig(sessions, workers=2)
    rig.fake.hold = False

    def result(work: Work) -> SliceResult:
        worker = next(name for name, held in held_at.items() if work.token in held)
        if worker == "fake-1":
            return broken_result(work)
        return ordinary(work)

    held_at: dict[str, list[tuple[int, int]]] = {}
    ordinary, submit = rig.fake._result, rig.fake.submit

    def noted(work: Any, worker: str) -> None:
        held_at.setdefault(worker, []).append(work.token)
        submit(work, worker)

    monkeypatch.setattr(rig.fake, "submit", noted)
    monkeypatch.setattr(rig.fake, "_result", result)
    rig.until(lambda: rig.fake.workers() == ["fake-0"])
    assert "3 slices in a row broke on it while others worked" in rig.worker("fake-1").message
    assert BROKEN_DISK in rig.worker("fake-1").message
    assert {attempt.cause for attempt in rig.attempts() if attempt.outcome == "infra_error"} == {"infra_error"}
    rig.finish(study_id)


def test_a_place_where_no_worker_gets_ready_is_quarantined(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    post_study(sessions)
    rig = Rig(sessions)
    monkeypatch.setattr(rig.fake, "_make_ready", lambda worker, places: stillborn(rig.fake, worker, places))
    for _ in range(5):
        rig.dispatcher.turn()
        for name in rig.fake.workers():
            rig.fake.kill(name, "ended with exit code 1")
    rig.until(lambda: "worker.quarantined" in kinds(rig.service_events()))
    (event,) = [event for event in rig.service_events() if event.kind == "worker.quarantined"]
    worker = rig.worker(event.payload["worker"])
    assert (worker.state, worker.node, worker.places) == ("quarantined", "fake", ["fake/0"])
    assert "5 workers in a row ended before they were ready" in worker.message
    assert worker.gone_at is not None


def test_a_drained_worker_is_replaced_and_its_slice_goes_on(sessions: Sessions) -> None:
    study_id = post_study(sessions)
    rig = Rig(sessions)
    work = rig.until_submitted(1)
    rig.ask(IntentKind.WORKER_DRAIN, "fake-0")
    again = rig.until_submitted(2)
    assert (again.token, again.alone) == ((work.slice_id, 2), False)
    assert rig.fake.workers() == ["fake-1"]
    assert rig.attempts()[0].outcome == "preempted"
    assert rig.worker("fake-0").state == "gone"
    assert kinds(rig.service_events()) == ["dispatcher.took_over", "worker.draining", "worker.ended"]
    rig.ask(IntentKind.WORKER_DRAIN, "fake-0")
    rig.until(lambda: any(rig.errors()))
    assert "no worker 'fake-0' is ready any more" in str(rig.errors())
    rig.finish(study_id)


def end(rig: Rig, monkeypatch: pytest.MonkeyPatch, work: Work, outcome: Outcome, *notices: Notice) -> None:
    """Let one held slice end like that."""
    result = broken_result(work).model_copy(update={"outcome": outcome, "notices": notices})
    monkeypatch.setattr(rig.fake, "_result", lambda _: result)
    rig.fake.stop(work.token)
    rig.dispatcher.turn()
    monkeypatch.undo()


def broken_result(work: Work) -> SliceResult:
    return SliceResult(
        slice_id=work.slice_id,
        attempt=work.attempt,
        outcome=Outcome.INFRA_ERROR,
        examples_seen=0,
        message=BROKEN_DISK,
    )


def stillborn(fake: FakeExecutor, worker: str, places: tuple[str, ...]) -> None:
    """A worker that is there and never becomes ready."""
    fake._held[worker] = deque()
    fake._places[worker] = places
