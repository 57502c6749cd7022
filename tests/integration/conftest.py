"""The API over a test's database, with a client that holds a key."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.cli import main
from hpo_service.core.settings import Settings
from tests import serving
from tests.serving import Hpo


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a model and rows; the only one that studies may name."""
    folder = tmp_path.resolve() / "files"
    serving.make_inputs(folder)
    return folder


@pytest.fixture
def settings(root: Path) -> Settings:
    """Of the API; a module with other inputs has its own."""
    return serving.settings(root)


@pytest.fixture
def anonymous(engine: Engine, settings: Settings) -> TestClient:
    """A client without credentials."""
    return serving.serve(engine, settings)


@pytest.fixture
def client(anonymous: TestClient, sessions: sessionmaker[Session]) -> TestClient:
    """A client with an API key."""
    anonymous.headers.update(serving.bearer(serving.make_key(sessions)))
    return anonymous


@pytest.fixture
def hpo(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Hpo:
    """Runs a command on the database of the test; its output and what it said."""
    monkeypatch.setenv("HPO_DATABASE_URL", database_url)
    monkeypatch.setenv("HPO_HOME", str(tmp_path / "home"))

    def run(*arguments: str, code: int = 0) -> tuple[str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        said = capsys.readouterr()
        assert (stopped.value.code or 0) == code, said.err
        return said.out, said.err

    return run
