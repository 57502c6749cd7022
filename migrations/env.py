"""Runs our migrations over the connection that the caller hands in; there is no offline mode and no ini file."""

from alembic import context
from sqlalchemy import Connection

import hpo_service.storage.audit_tables
import hpo_service.storage.promotion_tables  # noqa: F401 (its tables belong to the metadata)
from hpo_service.storage.tables import SCHEMA, Base


def _ours(name: str | None, kind: str, _parents: object) -> bool:
    return name == SCHEMA if kind == "schema" else True


connection: Connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    version_table_schema=SCHEMA,
    include_schemas=True,
    include_name=_ours,
)
with context.begin_transaction():
    context.run_migrations()
