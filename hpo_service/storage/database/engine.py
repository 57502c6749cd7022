"""URLs, engines and sessions. Every URL that we build or print says `postgresql+psycopg2://`."""

from datetime import timedelta

from sqlalchemy import Engine, create_engine
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import NullPool

from hpo_service.core.errors import SetupError
from hpo_service.storage.database.tenancy import EVERY_PROJECT, PROJECT_SETTING

DRIVER = "postgresql+psycopg2"
OPTUNA_SCHEMA = "optuna"
_BARE_SCHEMES = ("postgresql", "postgres")
_KEEPALIVES = {"keepalives": 1, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
#: what was sent and is not acknowledged for so long ends the connection; without it a network that swallows packets
#: blocks for a quarter of an hour
_UNACKNOWLEDGED = {"tcp_user_timeout": 15_000}


def normalize_url(url: str) -> str:
    """`url` with our driver: a bare one would pick another. Raises SetupError for what we cannot use."""
    return _rendered(_parsed(url))


def optuna_url(url: str) -> str:
    """The URL under which Optuna finds its tables: the same database, with its schema as search path."""
    parsed = _parsed(url)
    options = f"{_options(parsed)} -csearch_path={OPTUNA_SCHEMA}".strip()
    return _rendered(parsed.update_query_dict({"options": options}))


def read_only(url: str) -> str:
    """The URL with transactions that refuse to write, whatever its role may do."""
    parsed = _parsed(url)
    options = f"{_options(parsed)} -cdefault_transaction_read_only=on".strip()
    return _rendered(parsed.update_query_dict({"options": options}))


def describe(url: str) -> str:
    """The database and its server, without a secret, for messages."""
    parsed = _parsed(url)
    host = parsed.host or parsed.query.get("host") or "the default socket"
    port = f":{parsed.port}" if parsed.port else ""
    return f"database {parsed.database or parsed.username!r} at {host}{port}"


def make_engine(
    url: str,
    *,
    application_name: str,
    pool_size: int = 5,
    statement_timeout: timedelta = timedelta(seconds=30),
    lock_timeout: timedelta = timedelta(seconds=10),
    idle_in_transaction_timeout: timedelta = timedelta(seconds=60),
) -> Engine:
    """An engine whose connections are checked before use and whose statements and transactions end in time.

    Options in the URL win over these. `pool_size=0` keeps no connection. Statements' parameters never appear in errors
    or logs. Its connections see all projects, except in sessions of `tenancy.ProjectSessions`.
    """
    settings = {
        PROJECT_SETTING: EVERY_PROJECT,
        "search_path": "public",  # never "$user": a role named like our schema would change what names mean
        "timezone": "UTC",
        "statement_timeout": _milliseconds(statement_timeout),
        "lock_timeout": _milliseconds(lock_timeout),
        "idle_in_transaction_session_timeout": _milliseconds(idle_in_transaction_timeout),
    }
    parsed = _parsed(url)
    options = " ".join([*(f"-c{name}={value}" for name, value in settings.items()), _options(parsed)])
    target = parsed.update_query_dict({"options": options.strip()})
    connect_args = {"application_name": application_name, "connect_timeout": 10, **_KEEPALIVES, **_UNACKNOWLEDGED}
    if pool_size == 0:
        return create_engine(target, connect_args=connect_args, hide_parameters=True, poolclass=NullPool)
    return create_engine(
        target,
        connect_args=connect_args,
        hide_parameters=True,
        pool_pre_ping=True,
        pool_size=pool_size,
        max_overflow=10,
        pool_timeout=10,
    )


def session_factory(engine: Engine) -> sessionmaker[Session]:
    """Sessions whose objects stay readable after the commit."""
    return sessionmaker(engine, expire_on_commit=False)


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise SetupError(
            "The database URL cannot be read. Write it like postgresql://user:password@host:5432/database, with "
            "special characters of the password percent-encoded."
        ) from None
    if parsed.drivername not in (*_BARE_SCHEMES, DRIVER):
        raise SetupError(
            f"The database URL begins with {parsed.drivername!r}, but the service runs on PostgreSQL through psycopg2 "
            "only. Write it like postgresql://user:password@host:5432/database."
        )
    return parsed.set(drivername=DRIVER)


def _milliseconds(limit: timedelta) -> str:
    return str(round(limit.total_seconds() * 1000))


def _rendered(url: URL) -> str:
    return url.render_as_string(hide_password=False)


def _options(url: URL) -> str:
    present = url.query.get("options", ())
    return present if isinstance(present, str) else " ".join(present)
