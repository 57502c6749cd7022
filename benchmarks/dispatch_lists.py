"""How long the API takes for pages of lists, asked the way a client asks: every page of every list, after another."""

import tempfile
import time
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient
from sqlalchemy import Engine

from hpo_service.api.app import create_app
from hpo_service.api.auth import create_key
from hpo_service.database import session_factory
from hpo_service.settings import Settings
from hpo_service.tables import DEFAULT_PROJECT_ID

_PAGES_A_LIST = 40


def list_p95_ms(engine: Engine, study: str) -> float:
    """95 % of the pages of studies, trials and decisions take no longer."""
    with session_factory(engine).begin() as session:
        key = create_key(session, DEFAULT_PROJECT_ID, "benchmark")
    taken: list[float] = []
    with tempfile.TemporaryDirectory(prefix="hpo-bench-") as folder:
        settings = Settings(home=Path(folder) / "home", roots=(Path(folder),))
        client = TestClient(create_app(settings, engine, with_dashboard=False))
        client.headers["Authorization"] = f"Bearer {key}"
        for path in ("/v1/studies", f"/v1/studies/{study}/trials", f"/v1/studies/{study}/decisions"):
            taken += _pages(client, path)
    return sorted(taken)[int(0.95 * (len(taken) - 1))]


def _pages(client: TestClient, path: str) -> list[float]:
    """Milliseconds of each page; a list of one page is asked for again and again."""
    taken: list[float] = []
    parameters: dict[str, Any] = {}
    while len(taken) < _PAGES_A_LIST:
        begun = time.perf_counter()
        answer = client.get(path, params=parameters)
        taken.append(1000 * (time.perf_counter() - begun))
        answer.raise_for_status()
        token = answer.json()["next_page_token"]
        parameters = {} if token is None else {"page_token": token}
    return taken
