"""What a strategy remembers between decisions, and evaluation losses by fold."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_SCHEMA = "hpo"


def upgrade() -> None:
    """Apply."""
    memory = sa.Column("memory", JSONB, nullable=False, server_default=sa.text("'{}'::jsonb"))
    op.add_column("studies", memory, schema=_SCHEMA)
    op.add_column("slices", sa.Column("fold_losses", JSONB, nullable=True), schema=_SCHEMA)


def downgrade() -> None:
    """Undo."""
    op.drop_column("slices", "fold_losses", schema=_SCHEMA)
    op.drop_column("studies", "memory", schema=_SCHEMA)
