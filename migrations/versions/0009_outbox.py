"""How far each sink of the outbox has told the events."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_SCHEMA = "hpo"


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "outbox_cursors",
        sa.Column("sink", sa.Text(), nullable=False),
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("identity", sa.Text(), nullable=False, server_default=sa.text("(gen_random_uuid())::text")),
        sa.Column("last_event_id", sa.BigInteger(), nullable=False),
        sa.Column("moved_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")),
        sa.PrimaryKeyConstraint("sink", name="pk_outbox_cursors"),
        sa.ForeignKeyConstraint(["project_id"], ["hpo.projects.id"], name="fk_outbox_cursors_project_id"),
        schema=_SCHEMA,
    )


def downgrade() -> None:
    """Undo."""
    op.drop_table("outbox_cursors", schema=_SCHEMA)
