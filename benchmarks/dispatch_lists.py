"""How long the API takes for pages of lists, for a study's own page and for what watching it asks."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from fastapi.testclient import TestClient
from sqlalchemy import Engine

from hpo_service.api.app import create_app
from hpo_service.api.http.auth import create_key
from hpo_service.core.settings import Settings
from hpo_service.storage.database import session_factory
from hpo_service.storage.tables import DEFAULT_PROJECT_ID

REQUESTS = 50
_LISTS = ("trials", "slices", "decisions")
_SHOWN_TRIALS = 40


@contextmanager
def served(engine: Engine) -> Iterator[TestClient]:
    """A client of the API over this database."""
    with session_factory(engine).begin() as session:
        key = create_key(session, DEFAULT_PROJECT_ID, "benchmark")
    with tempfile.TemporaryDirectory(prefix="hpo-bench-") as folder:
        settings = Settings(home=Path(folder) / "home", roots=(Path(folder),), requests_per_second=0)
        client = TestClient(create_app(settings, engine, with_dashboard=False))
        client.headers["Authorization"] = f"Bearer {key}"
        yield client


def page_seconds(client: TestClient, study: str, requests: int = REQUESTS) -> dict[str, list[float]]:
    """Seconds of so many requests of each kind, by what was asked for; the very first of each comes first."""
    path = f"/v1/studies/{study}"
    taken = {"studies": _pages(client, "/v1/studies", requests), "home": _again(client, "/", requests)}
    taken |= {name: _pages(client, f"{path}/{name}", requests) for name in _LISTS}
    taken["show"] = _again(client, path, requests)
    newest = f"{path}/trials?newest_first=true&page_size={_SHOWN_TRIALS}"
    shown, trials = (_again(client, asked, requests) for asked in (path, newest))
    taken["watch"] = [one + other for one, other in zip(shown, trials, strict=True)]
    taken["best"] = _again(client, f"{path}/best", requests)
    return taken


def page_figures(engine: Engine, study: str) -> dict[str, float]:
    """`list_p95_ms`: of the pages of all lists together; `show_p95_ms`: of the study's own page; `watch_p95_ms`: of
    what `hpo study watch` asks for each time that it looks."""
    with served(engine) as client:
        taken = page_seconds(client, study)
    lists = [seconds for name in ("studies", "home", *_LISTS) for seconds in taken[name]]
    found = {"list_p95_ms": lists, "show_p95_ms": taken["show"], "watch_p95_ms": taken["watch"]}
    return {name: p95_ms(seconds) for name, seconds in found.items()}


def p95_ms(seconds: list[float]) -> float:
    """Milliseconds that 95 % do not exceed."""
    return 1000 * sorted(seconds)[int(0.95 * (len(seconds) - 1))]


def p50_ms(seconds: list[float]) -> float:
    """The median in milliseconds."""
    return 1000 * median(seconds)


def _again(client: TestClient, path: str, requests: int) -> list[float]:
    taken = []
    for _ in range(requests):
        begun = time.perf_counter()
        client.get(path).raise_for_status()
        taken.append(time.perf_counter() - begun)
    return taken


def _pages(client: TestClient, path: str, requests: int) -> list[float]:
    """Seconds of each page; a list that ends is begun again."""
    taken: list[float] = []
    parameters: dict[str, Any] = {}
    while len(taken) < requests:
        begun = time.perf_counter()
        answer = client.get(path, params=parameters)
        taken.append(time.perf_counter() - begun)
        answer.raise_for_status()
        token = answer.json()["next_page_token"]
        parameters = {} if token is None else {"page_token": token}
    return taken
