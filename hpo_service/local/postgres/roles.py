"""Database roles, their passwords, and connections to the server."""

import json
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg2
from psycopg2 import sql

from hpo_service.core.errors import SetupError

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection
    from psycopg2.extensions import cursor as Cursor

SUPERUSER = "postgres"
OWNER = "hpo"
DASHBOARD = "hpo_dashboard"
DATABASE = "hpo"
_CONNECT_SECONDS = 3


def read_passwords(path: Path) -> dict[str, str]:
    """Role -> password. Raises SetupError where the file is missing or not ours to read."""
    try:
        passwords = json.loads(path.read_text())
        return {role: str(passwords[role]) for role in (SUPERUSER, OWNER, DASHBOARD)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SetupError(
            f"The database's passwords cannot be read from {path} ({error}). Restore that file; or, to start with an "
            f"empty database, move {path.parent / 'data'} away."
        ) from error


def make_passwords(path: Path) -> None:
    """Write new random passwords, readable by the caller only."""
    passwords = {role: secrets.token_urlsafe(32) for role in (SUPERUSER, OWNER, DASHBOARD)}
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        json.dump(passwords, stream)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(path)


def connect(socket_folder: Path, password: str) -> "Connection":
    """A superuser connection in autocommit mode. Raises psycopg2.OperationalError where nobody answers."""
    connection = psycopg2.connect(
        host=str(socket_folder),
        port=5432,
        user=SUPERUSER,
        password=password,
        dbname=SUPERUSER,
        connect_timeout=_CONNECT_SECONDS,
    )
    connection.autocommit = True
    return connection


def ensure_own_database(connection: "Connection", name: str) -> str:
    """A role and its database, both of this name, created if missing. The role's new password; earlier ones end."""
    password = secrets.token_urlsafe(32)
    parts = {"name": sql.Identifier(name), "password": sql.Literal(password)}
    with connection.cursor() as cursor:
        present = _present(cursor)
        verb = "ALTER" if name in present else "CREATE"
        cursor.execute(sql.SQL(verb + " ROLE {name} LOGIN PASSWORD {password}").format(**parts))
        if f"database {name}" not in present:
            cursor.execute(sql.SQL("CREATE DATABASE {name} OWNER {name}").format(**parts))
        cursor.execute(sql.SQL("REVOKE CONNECT ON DATABASE {name} FROM PUBLIC").format(**parts))
    return password


def ensure_roles(connection: "Connection", passwords: dict[str, str]) -> None:
    """Create what is missing of our roles and our database. Repeating it changes nothing."""
    with connection.cursor() as cursor:
        present = _present(cursor)
        for role in (OWNER, DASHBOARD):
            if role not in present:
                # The default search path begins with "$user": the role hpo would take schema hpo for its default.
                create = "CREATE ROLE {role} LOGIN PASSWORD {password}; ALTER ROLE {role} SET search_path = public"
                parts = {"role": sql.Identifier(role), "password": sql.Literal(passwords[role])}
                cursor.execute(sql.SQL(create).format(**parts))
        if f"database {DATABASE}" not in present:
            names = {"database": sql.Identifier(DATABASE), "owner": sql.Identifier(OWNER)}
            cursor.execute(sql.SQL("CREATE DATABASE {database} OWNER {owner}").format(**names))


def _present(cursor: "Cursor") -> set[str]:
    """Names of roles; of databases behind the word `database`."""
    cursor.execute("SELECT rolname FROM pg_roles UNION ALL SELECT 'database ' || datname FROM pg_database")
    return {name for (name,) in cursor.fetchall()}
