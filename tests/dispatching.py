"""Posting studies and turning a dispatcher by hand, with slices that end at once."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial
from sqlalchemy import select, text
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.core.messages import IntentKind
from hpo_service.dispatcher.loop import Dispatcher
from hpo_service.executors.fake import FakeExecutor
from hpo_service.services.data import checks
from hpo_service.services.data.checks import Check
from hpo_service.spec import parse_spec, resolve
from hpo_service.storage.database import optuna_url
from hpo_service.storage.tables import DEFAULT_PROJECT_ID, Event, Intent, Study
from trainer.spec import CheckData, Slice

ROWS = 1000
SPEC: dict[str, Any] = {
    "metadata": {"name": "s"},
    "model": {"path": "model"},
    "data": {"train": "train.jsonl"},
    "space": {
        "learning_rate": {"low": 1e-5, "high": 1e-1, "log": True},
        "lora_r": {"choices": [4, 8, 16]},
        "lora_dropout": 0.0,
    },
    "baseline": {"learning_rate": 1e-4, "lora_r": 8},
    "search": {"deterministic": True, "seed": 3},
    "budget": {"max_trials": 9},
}


def loss_of(work: Slice) -> float:
    """A smooth bowl around a learning rate of 3e-3, lower the more examples were seen."""
    parameters = work.trial.parameters
    distance = abs(math.log10(parameters.learning_rate) - math.log10(3e-3))
    return 2.0 + 0.3 * distance + 0.01 * abs(parameters.lora_r - 8) + 1.0 / math.sqrt(work.until_examples)


def post_study(
    sessions: sessionmaker[Session],
    *,
    fingerprint: str | None = None,
    project_id: int = DEFAULT_PROJECT_ID,
    **overrides: Any,
) -> int:
    """Write a queued study and its create intent, as the API does; `a__b=c` overrides key b of section a.

    With a `fingerprint`, it waits for the check of its data.
    """
    document: dict[str, Any] = {key: dict(value) if isinstance(value, dict) else value for key, value in SPEC.items()}
    for path, value in overrides.items():
        section, _, key = path.partition("__")
        if key:
            document.setdefault(section, {})[key] = value
        else:
            document[section] = value
    resolved = resolve(
        parse_spec(document), model_path="/m", train="/d/train.jsonl", eval=None, train_rows=ROWS, eval_rows=50
    )
    with sessions.begin() as session:
        study = Study(
            project_id=project_id,
            name=document["metadata"]["name"],
            spec=document,
            resolved=resolved.model_dump(mode="json"),
            state="queued",
        )
        session.add(study)
        session.flush()
        if fingerprint is not None:
            check = Check(task=CheckData(model="/m", data=resolved.data), fingerprint=fingerprint)
            study.check_job_id = checks.ask(session, project_id, check, study.id).job
        session.add(Intent(project_id=project_id, study_id=study.id, kind="create"))
        return study.id


def ask(sessions: sessionmaker[Session], study_id: int, kind: IntentKind, **payload: Any) -> None:
    """Write an intent."""
    with sessions.begin() as session:
        session.add(Intent(project_id=DEFAULT_PROJECT_ID, study_id=study_id, kind=str(kind), payload=payload))


def make(sessions: sessionmaker[Session], executor: FakeExecutor | None = None) -> tuple[Dispatcher, FakeExecutor]:
    """A dispatcher with a fake executor, which it starts."""
    fake = executor or FakeExecutor(loss_of)
    return Dispatcher(sessions, fake, snapshots=Path("/nonexistent")), fake


def turn_until(dispatcher: Dispatcher, condition: Callable[[], bool], turns: int = 600) -> None:
    """Turn the loop until the condition holds."""
    for _ in range(turns):
        if condition():
            return
        dispatcher.turn()
    raise AssertionError(f"not reached in {turns} turns")


def state_of(sessions: sessionmaker[Session], study_id: int) -> str:
    """The study's state in the table."""
    with sessions() as session:
        return session.scalars(select(Study.state).where(Study.id == study_id)).one()


def events_of(sessions: sessionmaker[Session], study_id: int) -> list[Event]:
    """The study's history."""
    with sessions() as session:
        return list(session.scalars(select(Event).where(Event.study_id == study_id).order_by(Event.id)))


def optuna_trials(url: str, name: str = "s") -> list[FrozenTrial]:
    """The study as Optuna reads it from its own tables."""
    return optuna.load_study(study_name=name, storage=optuna_url(url)).trials


def expire_lease(sessions: sessionmaker[Session]) -> None:
    """As if the leader had been silent for longer than its lease."""
    with sessions.begin() as session:
        session.execute(text("UPDATE hpo.leases SET expires_at = clock_timestamp() - interval '1 second'"))


def study_row(sessions: sessionmaker[Session], study_id: int) -> Study:
    with sessions() as session:
        return session.get_one(Study, study_id)


def ended(sessions: sessionmaker[Session], study_id: int) -> Callable[[], bool]:
    return lambda: state_of(sessions, study_id) in ("completed", "failed", "cancelled")
