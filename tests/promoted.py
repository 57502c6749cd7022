"""A study that ended, and promotions of its trials, over HTTP."""

from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient
from sqlalchemy.orm import Session, sessionmaker

from tests import serving
from tests.dispatching import turn_until
from tests.serving import spec

SEARCH = {"strategy": "asha", "sampler": "random", "deterministic": True, "seed": 3}


def end_study(client: TestClient, sessions: sessionmaker[Session], root: Path) -> None:
    """Study `first` runs to its end; its trials get real snapshots."""
    client.post("/v1/studies", json=spec(search=SEARCH, budget={"max_trials": 4}))
    dispatcher, _ = serving.make_dispatcher(sessions)
    turn_until(dispatcher, lambda: client.get("/v1/studies/first").json()["state"] == "completed")
    dispatcher.context.proposals.close()
    dispatcher.context.leadership.release()
    for trial in client.get("/v1/studies/first/trials").json()["items"]:
        serving.keep_snapshot(root, sessions, trial["number"])


def promote(client: TestClient, name: str = "bot", **body: Any) -> dict[str, Any]:
    """The promotion that was made."""
    answer = client.post("/v1/promotions", json={"study": "first", "name": name, **body})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made
