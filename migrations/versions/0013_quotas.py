"""What a project may use at most."""

import sqlalchemy as sa
from alembic import op

from migrations.walls import raise_wall

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_SCHEMA = "hpo"
_ENDS = "ix_attempts_project_id_finished_at"


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "project_quotas",
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("parallel_gpus", sa.BigInteger(), nullable=True),
        sa.Column("gpu_hours_month", sa.Float(), nullable=True),
        sa.Column("studies", sa.BigInteger(), nullable=True),
        sa.Column("stored_bytes", sa.BigInteger(), nullable=True),
        sa.Column("used_bytes", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("project_id", name="pk_project_quotas"),
        sa.ForeignKeyConstraint(["project_id"], ["hpo.projects.id"], name="fk_project_quotas_project_id"),
        schema=_SCHEMA,
    )
    raise_wall("project_quotas")
    op.create_index(_ENDS, "attempts", ["project_id", "finished_at"], schema=_SCHEMA)


def downgrade() -> None:
    """Undo."""
    op.drop_index(_ENDS, "attempts", schema=_SCHEMA)
    op.drop_table("project_quotas", schema=_SCHEMA)
