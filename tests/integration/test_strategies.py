"""Strategies that remember something, in the dispatcher on a real PostgreSQL."""

from typing import Any, get_args

import pytest
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.spec.study import SamplerName, StrategyName
from hpo_service.storage.tables import Study
from tests.dispatching import events_of, expire_lease, make, optuna_trials, post_study, state_of, turn_until

Sessions = sessionmaker[Session]


def run_to_end(sessions: Sessions, study_id: int, *, killed_every_turns: int | None = None) -> None:
    """With a number of turns every dispatcher is gone after so many, and another one takes over."""

    def ended() -> bool:
        return state_of(sessions, study_id) == "completed"

    while killed_every_turns is not None and not ended():
        dispatcher, _ = make(sessions)
        for _ in range(killed_every_turns):
            dispatcher.turn()
        expire_lease(sessions)
    dispatcher, _ = make(sessions)
    turn_until(dispatcher, ended, turns=2000)


def facts(trial: FrozenTrial) -> tuple[Any, ...]:
    return (trial.number, trial.state, trial.params, trial.value, trial.intermediate_values)


def memory_of(sessions: Sessions, study_id: int) -> dict[str, Any]:
    with sessions() as session:
        return dict(session.scalars(select(Study.memory).where(Study.id == study_id)).one())


@pytest.mark.parametrize("strategy", ["freeze_thaw", "successive_halving"])
def test_a_killed_dispatcher_changes_nothing(sessions: Sessions, database_url: str, strategy: StrategyName) -> None:
    posted: dict[str, Any] = {"search__strategy": strategy, "budget__max_trials": 12}
    first = post_study(sessions, **posted)
    run_to_end(sessions, first)
    second = post_study(sessions, metadata__name="t", **posted)
    run_to_end(sessions, second, killed_every_turns=23)
    undisturbed, killed = optuna_trials(database_url), optuna_trials(database_url, "t")
    assert [facts(trial) for trial in undisturbed] == [facts(trial) for trial in killed]
    assert any(trial.state is TrialState.COMPLETE for trial in killed[1:])
    assert memory_of(sessions, first) == memory_of(sessions, second)
    assert memory_of(sessions, first)


@pytest.mark.parametrize("sampler", [name for name in get_args(SamplerName) if name not in ("tpe", "gp")])
def test_a_study_with_each_sampler_ends(sessions: Sessions, database_url: str, sampler: SamplerName) -> None:
    study_id = post_study(sessions, search__sampler=sampler)
    run_to_end(sessions, study_id)
    assert len(optuna_trials(database_url)) == 9


def test_a_decision_is_told_with_its_numbers(sessions: Sessions) -> None:
    study_id = post_study(sessions, search__strategy="freeze_thaw", budget__max_trials=14)
    run_to_end(sessions, study_id)
    started = [event.payload for event in events_of(sessions, study_id) if event.kind == "slice.started"]
    decided = [payload["numbers"] for payload in started if payload["numbers"].get("rule") == "improvement"]
    assert decided
    assert all(numbers["cost_in_full_trials"] > 0 for numbers in decided)
