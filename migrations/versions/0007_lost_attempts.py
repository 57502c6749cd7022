"""What attempts that were lost are estimated to have cost, and when a slice was last heard of."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_SCHEMA = "hpo"
_WITH_USAGE = ("attempts", "study_usage")


def upgrade() -> None:
    """Apply."""
    for table in _WITH_USAGE:
        seconds: sa.Column[float] = sa.Column("lost_seconds", sa.Double(), nullable=False, server_default="0")
        op.add_column(table, seconds, schema=_SCHEMA)
    op.add_column("slices", sa.Column("heard_at", sa.TIMESTAMP(timezone=True), nullable=True), schema=_SCHEMA)


def downgrade() -> None:
    """Undo."""
    op.drop_column("slices", "heard_at", schema=_SCHEMA)
    for table in _WITH_USAGE:
        op.drop_column(table, "lost_seconds", schema=_SCHEMA)
