"""The API over a test's database, with a client that holds a key."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from tests import serving


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a model and rows; the only one that studies may name."""
    folder = tmp_path.resolve() / "files"
    serving.make_inputs(folder)
    return folder


@pytest.fixture
def anonymous(engine: Engine, root: Path) -> TestClient:
    """A client without credentials."""
    return serving.serve(engine, serving.settings(root))


@pytest.fixture
def client(anonymous: TestClient, sessions: sessionmaker[Session]) -> TestClient:
    """A client with an API key."""
    anonymous.headers.update(serving.bearer(serving.make_key(sessions)))
    return anonymous
