"""Database URLs: which driver they name and what they refuse."""

import pytest
from sqlalchemy.engine import make_url

from hpo_service.core.errors import SetupError
from hpo_service.storage.database import describe, normalize_url, optuna_url


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg2"])
def test_driver(scheme: str) -> None:
    """Every way to say PostgreSQL becomes our driver; nothing else of the URL changes."""
    assert normalize_url(f"{scheme}://u:p%40ss@h:5433/d") == "postgresql+psycopg2://u:p%40ss@h:5433/d"


@pytest.mark.parametrize("url", ["sqlite:///x.db", "postgresql+asyncpg://u:secret@h/d", "mysql://u:secret@h/d"])
def test_other_databases(url: str) -> None:
    """Another database or driver is refused, its password not repeated."""
    with pytest.raises(SetupError, match=url.split(":")[0].replace("+", r"\+")) as raised:
        normalize_url(url)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("url", ["", "secret", "postgresql://u:secret@h:port/d"])
def test_unreadable(url: str) -> None:
    """What is no URL is refused, not repeated."""
    with pytest.raises(SetupError, match="cannot be read") as raised:
        normalize_url(url)
    assert "secret" not in str(raised.value)


def test_optuna_search_path() -> None:
    """The search path is added to options that are there already, also for a socket's URL."""
    plain = optuna_url("postgresql://u:p@h/d")
    assert plain.endswith("?options=-csearch_path%3Doptuna")
    query = make_url(optuna_url("postgresql:///d?host=/run/x&options=-cstatement_timeout%3D5")).query
    assert query == {"host": "/run/x", "options": "-cstatement_timeout=5 -csearch_path=optuna"}


def test_description() -> None:
    """Messages name the database and the server, never the password."""
    assert describe("postgresql://u:secret@h:5433/d") == "database 'd' at h:5433"
    assert describe("postgresql://u:secret@/d?host=/run/x") == "database 'd' at /run/x"
