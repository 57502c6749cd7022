"""The rules that shake the model of dispatch, against the real dispatcher on PostgreSQL: they agree at every step."""

import math
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.core.errors import LeaseLost
from hpo_service.core.messages import IntentKind
from hpo_service.dispatcher.loop import Dispatcher
from hpo_service.executors.base import SliceEnded
from hpo_service.executors.fake import FakeExecutor
from hpo_service.local.postgres import EmbeddedPostgres
from hpo_service.spec import ResolvedStudy
from hpo_service.storage.database import make_engine, session_factory
from hpo_service.storage.queries.optuna_reads import read_trials
from hpo_service.storage.tables import Slice, Study
from tests.conftest import fresh_database
from tests.dispatch_model import ENDED, LADDER, MAX_ATTEMPTS, MAX_PARALLEL, DispatchRules, Token
from tests.dispatching import ask, expire_lease, post_study
from tests.invariants import broken
from trainer.spec import Outcome, SliceResult, SnapshotRef

#: a study that is to fail ends like one that is cancelled, with a message
_SHOWN = {"failing": "cancelling"}
_QUIET_TURNS = 2
_SETTLING_SECONDS = 30.0
_DROP_SESSIONS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()
"""


class HeldExecutor(FakeExecutor):
    """Two workers that hold what they are given until the rules say how it ends."""

    def __init__(self) -> None:
        super().__init__(lambda _: math.nan, workers=2)
        self.hold = True
        self.start()

    def stop(self, token: Token) -> None:
        """Whether it stops is for the rules to say."""

    def end(self, result: SliceResult) -> None:
        """An account of an attempt, whether a worker holds it or not."""
        for held in self._held.values():
            for work in [work for work in held if work.token == (result.slice_id, result.attempt)]:
                held.remove(work)
        self._events.append(SliceEnded(worker=next(iter(self._held)), result=result))

    def holder(self, token: Token) -> str:
        """Who was given the attempt."""
        return next(name for name, held in self._held.items() if any(work.token == token for work in held))


class ServiceRules(DispatchRules):
    """The real dispatcher does what the model says, in a database of its own."""

    def __init__(self, postgres: EmbeddedPostgres) -> None:
        super().__init__()
        self._database = fresh_database(postgres)
        self._url = self._database.__enter__()
        self._engine = make_engine(self._url, application_name="test")
        self._sessions: sessionmaker[Session] = session_factory(self._engine)
        self._study = post_study(
            self._sessions,
            search={"strategy": "asha", "sampler": "random", "deterministic": True, "first_rung_fraction": 0.1},
            budget={"max_trials": self.model.max_trials, "max_parallel": MAX_PARALLEL},
            resources={"max_attempts": MAX_ATTEMPTS},
        )
        assert self._row().resolved["ladder"] == list(LADDER)
        self._seen = 0
        self._dispatcher, self._executor = self._dispatch()
        self._settle()

    def teardown(self) -> None:
        """The database goes."""
        self._dispatcher.context.proposals.close()
        self._engine.dispose()
        self._database.__exit__(None, None, None)

    @rule()
    def drop_sessions(self) -> None:
        """The database ends every session: what was not committed is not, what was is."""
        with suppress(DBAPIError), self._engine.connect() as connection:
            connection.execute(text(_DROP_SESSIONS))
        self._settle()

    @precondition(lambda self: self.held)
    @rule(loss=st.floats(5.0, 9.0))
    def wake_a_zombie(self, loss: float) -> None:
        """A dispatcher that another has replaced hears of its worker's success, and must not write it down."""
        old, executor, token = self._dispatcher, self._executor, min(self.held)
        self.take_over()
        executor.end(self._result(token, Outcome.DONE, loss))
        with pytest.raises(LeaseLost):
            _turn_for_ever(old)
        self._settle()

    def fill(self, data: st.DataObject) -> None:
        """It fills its slots by itself."""
        self._settle()

    def deliver(self, token: Token, outcome: Outcome, loss: float) -> None:
        """From a worker, in one turn with a copy of itself."""
        self._executor.end(self._result(token, outcome, loss))
        self._executor.end(self._result(token, outcome, loss + 1))
        self._settle()

    def lose(self, worker: str) -> None:
        """It and another take turns in dying."""
        self._executor.kill(worker)
        self._settle()

    def replace_dispatcher(self) -> None:
        """The one that led does not know it yet."""
        expire_lease(self._sessions)
        self._dispatcher.context.proposals.close()
        self._dispatcher, self._executor = self._dispatch()
        self._seen = 0
        self._settle()

    def ask(self, verb: str) -> None:
        """As the API does it."""
        if verb == "extend":
            resolved = ResolvedStudy.model_validate(self._row().resolved)
            budget = {"max_trials": resolved.budget.max_trials + 1}
            ask(
                self._sessions,
                self._study,
                IntentKind.EXTEND,
                resolved=resolved.extend({}, budget).model_dump(mode="json"),
            )
        else:
            ask(self._sessions, self._study, IntentKind(verb))
        self._settle()

    def _dispatch(self) -> tuple[Dispatcher, HeldExecutor]:
        executor = HeldExecutor()
        return Dispatcher(self._sessions, executor, snapshots=Path("/nonexistent")), executor

    def _settle(self) -> None:
        """Turn until nothing is left to do, tell the model what was begun and compare."""
        quiet, deadline = 0, time.monotonic() + _SETTLING_SECONDS
        while quiet < _QUIET_TURNS:
            assert time.monotonic() < deadline, "the dispatcher does not come to rest"
            self._executor.wake()
            self._dispatcher._intents_at = -math.inf
            with suppress(DBAPIError):
                self._dispatcher.turn()
            futures = self._dispatcher.context.proposals._futures
            quiet = 0 if futures or len(self._executor.submitted) > self._seen else quiet + 1
            for future in list(futures.values()):
                future.exception(_SETTLING_SECONDS)
            for work in self._executor.submitted[self._seen :]:
                trial = self._trial_of(work.slice_id)
                self.begun(work.token, trial, work.until_examples, self._executor.holder(work.token))
            self._seen = len(self._executor.submitted)
        self._compare()

    def _compare(self) -> None:
        row = self._row()
        if row.state == "completed" and self.model.state not in ENDED:
            self.model.finished()
        assert row.state == _SHOWN.get(self.model.state, self.model.state), row.message
        with self._sessions() as session:
            slices = {
                piece.id: (piece.trial_number, piece.until_examples, piece.attempt, piece.state, piece.failures)
                for piece in session.scalars(select(Slice))
            }
            trials = read_trials(session.connection(), row.optuna_study_id or 0)
        with self._sessions() as session:
            assert broken(session) == []
        expected = {
            number: (piece.trial, piece.until, piece.attempt, piece.state, piece.failures)
            for number, piece in self.model.slices.items()
        }
        assert slices == expected
        assert {(trial.number, step): loss for trial in trials for step, loss in trial.intermediate_values.items()} == (
            self.model.losses
        )
        states = {name: {trial.number for trial in trials if trial.state.name == name} for name in ("COMPLETE", "FAIL")}
        assert states["COMPLETE"] == self.model.complete
        assert states["FAIL"] >= self.model.failed

    def _result(self, token: Token, outcome: Outcome, loss: float) -> SliceResult:
        done, known = outcome is Outcome.DONE, self.model.slices.get(token[0])
        until = known.until if known is not None else LADDER[0]
        snapshot = SnapshotRef(path=f"1/1/{until}/{token[1]}", digest="0" * 64, examples_seen=until)
        return SliceResult(
            slice_id=token[0],
            attempt=token[1],
            outcome=outcome,
            examples_seen=until if done else 0,
            finished=done and until == LADDER[-1],
            eval_loss=loss if done else None,
            snapshot=snapshot if done else None,
        )

    def _row(self) -> Study:
        with self._sessions() as session:
            return session.scalars(select(Study)).one()

    def _trial_of(self, slice_id: int) -> int:
        with self._sessions() as session:
            return session.scalars(select(Slice.trial_number).where(Slice.id == slice_id)).one()


def _turn_for_ever(dispatcher: Dispatcher) -> None:
    deadline = time.monotonic() + _SETTLING_SECONDS
    while time.monotonic() < deadline:
        dispatcher.turn()


def test_the_dispatcher_does_what_the_model_says(postgres: EmbeddedPostgres) -> None:
    run_state_machine_as_test(
        lambda: ServiceRules(postgres),  # type: ignore[arg-type]
        settings=settings(
            max_examples=10,
            stateful_step_count=20,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
