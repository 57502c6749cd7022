"""What the data of a study are, once its first slice has seen them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_SCHEMA = "hpo"


def upgrade() -> None:
    """Apply."""
    op.add_column("studies", sa.Column("data_fingerprints", JSONB, nullable=True), schema=_SCHEMA)


def downgrade() -> None:
    """Undo."""
    op.drop_column("studies", "data_fingerprints", schema=_SCHEMA)
