"""What an attempt was computed in, what `model.dtype: auto` is on a worker, and whether its steps can be repeated.

Studies of before keep the dtype that their resolved spec names.
"""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

_SCHEMA = "hpo"


def upgrade() -> None:
    """Apply."""
    op.add_column("attempts", sa.Column("dtype", sa.Text(), server_default="", nullable=False), schema=_SCHEMA)
    op.add_column("workers", sa.Column("auto_dtype", sa.Text(), server_default="", nullable=False), schema=_SCHEMA)
    op.add_column("workers", sa.Column("repeatable", sa.Boolean(), nullable=True), schema=_SCHEMA)


def downgrade() -> None:
    """Undo."""
    op.drop_column("workers", "repeatable", schema=_SCHEMA)
    op.drop_column("workers", "auto_dtype", schema=_SCHEMA)
    op.drop_column("attempts", "dtype", schema=_SCHEMA)
