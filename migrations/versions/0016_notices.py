"""What became of the notices of each sink: how many were delivered, refused, or found nobody at home."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_SCHEMA = "hpo"


def upgrade() -> None:
    """Apply."""
    column = sa.Column("results", JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False)
    op.add_column("outbox_cursors", column, schema=_SCHEMA)


def downgrade() -> None:
    """Undo."""
    op.drop_column("outbox_cursors", "results", schema=_SCHEMA)
