"""One browser for all tests of the console; a service of its own for each."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from tests import serving
from tests.browsing import Console, browsing, serving_console


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Headless."""
    with browsing() as browser:
        yield browser


@pytest.fixture
def console(engine: Engine, sessions: sessionmaker[Session], tmp_path: Path) -> Iterator[Console]:
    """What happened in the browser beside what was asked is an error."""
    root = tmp_path.resolve() / "files"
    serving.make_inputs(root)
    with serving_console(engine, sessions, root) as console:
        yield console
        assert console.complaints == []
