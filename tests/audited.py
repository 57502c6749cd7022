"""The audit log of a test's database, whole and by hand."""

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, text
from sqlalchemy.engine import make_url

from hpo_service.local.local_admin import Credentials
from hpo_service.local.postgres import SUPERUSER, EmbeddedPostgres
from hpo_service.storage.audit_chain import Verdict
from hpo_service.storage.database import make_engine

#: where what is done leaves no trace that a change of the request would leave
_ASIDE = frozenset({"audit", "audit_heads", "alembic_version"})


@dataclass(frozen=True)
class Audited:
    """One row."""

    number: int
    who: str
    key_id: int | None
    action: str
    object: str
    outcome: str
    status: int | None
    request_id: str | None
    client: str | None
    details: dict[str, Any]


def audited(engine: Engine, project_id: int = 1) -> list[Audited]:
    """The rows of a project, the oldest first."""
    columns = ", ".join(Audited.__dataclass_fields__)
    query = text(f"SELECT {columns} FROM hpo.audit WHERE project_id = :project ORDER BY number")
    with engine.connect() as connection:
        rows = [dict(row._mapping) for row in connection.execute(query, {"project": project_id})]
    return [Audited(**{**row, "details": json.loads(row["details"])}) for row in rows]


def contents(engine: Engine) -> dict[str, str]:
    """A digest of each other table of ours; when a key was last used does not count."""
    with engine.connect() as connection:
        names = connection.scalars(text("SELECT tablename FROM pg_tables WHERE schemaname = 'hpo'"))
        return {
            name: connection.execute(
                text(
                    "SELECT md5(coalesce(string_agg(row, ',' ORDER BY row), '')) FROM "
                    f"(SELECT (to_jsonb(t) - 'last_used_at')::text AS row FROM hpo.{name} t) rows"
                )
            ).scalar_one()
            for name in names
            if name not in _ASIDE
        }


def verdict(database_url: str, project: str = "default") -> Verdict:
    """What `hpo audit verify` finds."""
    with Credentials(database_url) as credentials:
        return dict(credentials.verify_audit(project))[project]


def forge(postgres: EmbeddedPostgres, database_url: str, *statements: str) -> None:
    """Carry out statements as somebody who may do everything, and whom no trigger stops."""
    url = postgres.url(str(make_url(database_url).database), role=SUPERUSER)
    engine = make_engine(url, application_name="forger", pool_size=0)
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        for statement in statements:
            connection.execute(text(statement))
