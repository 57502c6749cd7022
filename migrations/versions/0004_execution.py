"""Workers with places, why attempts ended, what they were expected to take, and a study's forecast."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_SCHEMA = "hpo"
_EMPTY_OBJECT = sa.text("'{}'::jsonb")
_EMPTY_LIST = sa.text("'[]'::jsonb")


def upgrade() -> None:
    """Apply."""
    for column in (
        sa.Column("node", sa.Text(), nullable=False, server_default=""),
        sa.Column("places", JSONB, nullable=False, server_default=_EMPTY_LIST),
    ):
        op.add_column("workers", column, schema=_SCHEMA)
    for table in ("slices", "jobs"):
        causes = sa.Column("failures_by_cause", JSONB, nullable=False, server_default=_EMPTY_OBJECT)
        op.add_column(table, causes, schema=_SCHEMA)
    op.add_column("attempts", sa.Column("cause", sa.Text(), nullable=True), schema=_SCHEMA)
    op.add_column("attempts", sa.Column("predicted_seconds", sa.Double(), nullable=True), schema=_SCHEMA)
    op.add_column("studies", sa.Column("forecast", JSONB, nullable=False, server_default=_EMPTY_OBJECT), schema=_SCHEMA)
    op.alter_column("events", "study_id", nullable=True, schema=_SCHEMA)


def downgrade() -> None:
    """Undo. Events of no study are lost."""
    op.execute("DELETE FROM hpo.events WHERE study_id IS NULL")
    op.alter_column("events", "study_id", nullable=False, schema=_SCHEMA)
    op.drop_column("studies", "forecast", schema=_SCHEMA)
    op.drop_column("attempts", "predicted_seconds", schema=_SCHEMA)
    op.drop_column("attempts", "cause", schema=_SCHEMA)
    for table in ("jobs", "slices"):
        op.drop_column(table, "failures_by_cause", schema=_SCHEMA)
    for column in ("places", "node"):
        op.drop_column("workers", column, schema=_SCHEMA)
