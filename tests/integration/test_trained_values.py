"""Optuna's tables say what was trained: what `load_study` reads is what the workers were given, whatever grew."""

import json
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, Engine, select, text
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.core.messages import IntentKind
from hpo_service.executors.fake import FakeExecutor
from hpo_service.spec import ResolvedStudy
from hpo_service.storage.database import optuna_url
from hpo_service.storage.database.preparation import downgrade, upgrade
from hpo_service.storage.tables import Study
from tests.dispatching import ask, expire_lease, loss_of, make, optuna_trials, post_study, state_of, turn_until

Sessions = sessionmaker[Session]
SPACE: dict[str, Any] = {
    "learning_rate": {"low": 1e-5, "high": 1e-1, "log": True},
    "lora_r": {"choices": [8, 16, 32]},
    "alpha_factor": {"choices": [1, 2]},
    "lora_alpha": {"expr": "alpha_factor * lora_r"},
    "lr_scheduler": {"choices": ["cosine", "linear"]},
    "lora_dropout": 0.05,
}
BASELINE = {"learning_rate": 1e-4, "lora_r": 8, "alpha_factor": 2, "lr_scheduler": "cosine"}
BEFORE_VALUES = "0016"


def post(sessions: Sessions, **changes: Any) -> int:
    return post_study(sessions, space=dict(SPACE), baseline=BASELINE, **changes)


def widen_below(sessions: Sessions, study_id: int) -> None:
    with sessions() as session:
        written = session.scalars(select(Study.resolved).where(Study.id == study_id)).one()
    grown = ResolvedStudy.model_validate(written).extend({"lora_r": {"choices": [2, 4, 8, 16, 32]}}, {})
    ask(sessions, study_id, IntentKind.EXTEND, resolved=grown.model_dump(mode="json"))


def require_what_ran(trials: list[FrozenTrial], fake: FakeExecutor) -> None:
    """Every parameter that a worker was given stands in the trial, by its name and with its value."""
    assert trials
    given = {int(work.snapshot_dir.split("/")[1]): work.trial for work in fake.submitted}
    for trial in trials:
        ran = given.get(trial._trial_id)
        shown: Mapping[str, Any] = {**trial.user_attrs, **trial.params}
        assert "parameters" not in shown
        if ran is not None:
            assert {name: shown[name] for name in ran.parameters.model_dump()} == ran.parameters.model_dump()
            assert not trial.user_attrs.keys() & trial.params.keys()


def test_optuna_reads_what_the_workers_were_given(sessions: Sessions, database_url: str) -> None:
    study_id = post(sessions)
    dispatcher, fake = make(sessions)
    turn_until(dispatcher, lambda: len(fake.submitted) >= 4)
    widen_below(sessions, study_id)
    ask(sessions, study_id, IntentKind.ENQUEUE, parameters={"lora_r": 2, "learning_rate": 2e-3})
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "completed")
    study = optuna.load_study(study_name="s", storage=optuna_url(database_url))
    require_what_ran(study.trials, fake)
    assert {trial.params["lora_r"] for trial in study.trials} <= {2, 4, 8, 16, 32}
    (wanted,) = [trial for trial in study.trials if trial.params["learning_rate"] == 2e-3]
    assert wanted.params["lora_r"] == 2
    assert wanted.distributions["lora_r"] == IntDistribution(2, 32, log=True)
    assert study.trials[0].distributions["lora_r"] == IntDistribution(8, 32, log=True)
    assert wanted.distributions["lr_scheduler"] == CategoricalDistribution(("cosine", "linear"))
    assert study.trials[0].params == BASELINE
    assert study.trials[0].user_attrs["lora_alpha"] == 16
    assert study.best_params["lora_r"] in (2, 4, 8, 16, 32)


def as_before(connection: Connection) -> None:
    """What choices that were added below looked like: the value that was smallest at first keeps index 0."""
    rows = connection.execute(text("SELECT id, resolved FROM hpo.studies")).all()
    for row in rows:
        form = row.resolved["space"]["parameters"]["lora_r"]
        form["first_index"] = -form["values"].index(8)
        for candidate in (row.resolved["confirmation"] or {}).get("candidates", []):
            candidate["sampled"]["lora_r"] += form["first_index"]
        connection.execute(
            text("UPDATE hpo.studies SET resolved = CAST(:resolved AS jsonb) WHERE id = :id"),
            {"resolved": json.dumps(row.resolved), "id": row.id},
        )
    connection.execute(text("UPDATE optuna.trial_params SET param_value = param_value - 2 WHERE param_name = 'lora_r'"))
    fixed = connection.execute(text("SELECT * FROM optuna.trial_system_attributes WHERE key = 'fixed_params'")).all()
    for row in fixed:
        values = json.loads(row.value_json)
        values["lora_r"] -= 2
        connection.execute(
            text("UPDATE optuna.trial_system_attributes SET value_json = :v WHERE trial_system_attribute_id = :id"),
            {"v": json.dumps(values), "id": row.trial_system_attribute_id},
        )


def _picture(sessions: Sessions, url: str, name: str) -> Any:
    """All that is known of a study's trials, and its spec."""
    trials = [
        (trial.number, trial.state, trial.params, trial.user_attrs, trial.system_attrs, trial.intermediate_values)
        for trial in optuna_trials(url, name)
    ]
    with sessions() as session:
        return trials, session.scalars(select(Study.resolved).where(Study.name == name)).one()


def test_a_database_from_before_is_converted(sessions: Sessions, engine: Engine, database_url: str) -> None:
    """A study that grew below, with a waiting trial, and one that is confirmed; both go on as if nothing had been."""
    study_id = post(sessions, confirm={"share": 0.6}, budget__max_examples=20_000, budget__max_trials=20)
    dispatcher, fake = make(sessions)
    turn_until(dispatcher, lambda: len(fake.submitted) >= 4)
    widen_below(sessions, study_id)
    ask(sessions, study_id, IntentKind.ENQUEUE, parameters={"lora_r": 4, "learning_rate": 2e-3})
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "completed")
    live = post(sessions, metadata__name="t", space__lora_r={"choices": [2, 4, 8, 16, 32]})
    turn_until(dispatcher, lambda: state_of(sessions, live) == "running" and len(optuna_trials(database_url, "t")) > 2)
    ask(sessions, live, IntentKind.ENQUEUE, parameters={"lora_r": 4, "learning_rate": 2e-3})
    fake.hold = True
    turn_until(dispatcher, lambda: any(trial.state is TrialState.WAITING for trial in optuna_trials(database_url, "t")))
    names = ("s", "s/confirm", "t")
    before = {name: _picture(sessions, database_url, name) for name in names}

    downgrade(engine, BEFORE_VALUES)
    with engine.begin() as connection:
        as_before(connection)
    indexes = {trial.params["lora_r"] for name in names for trial in optuna_trials(database_url, name) if trial.params}
    assert min(indexes) < 0
    upgrade(engine)

    assert {name: _picture(sessions, database_url, name) for name in names} == before
    again, fake = make(sessions, FakeExecutor(loss_of))
    expire_lease(sessions)
    turn_until(again, lambda: state_of(sessions, live) == "completed")
    require_what_ran(optuna_trials(database_url, "t"), fake)
