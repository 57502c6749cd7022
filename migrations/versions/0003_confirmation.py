"""A study that confirms the best of another one belongs to it."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_SCHEMA = "hpo"
_KEY = "fk_studies_project_id_parent_study_id"
_INDEX = "uq_studies_parent_study_id_live"


def upgrade() -> None:
    """Apply."""
    op.add_column("studies", sa.Column("parent_study_id", sa.BigInteger(), nullable=True), schema=_SCHEMA)
    op.create_foreign_key(
        _KEY,
        "studies",
        "studies",
        ["project_id", "parent_study_id"],
        ["project_id", "id"],
        source_schema=_SCHEMA,
        referent_schema=_SCHEMA,
    )
    op.create_index(
        _INDEX,
        "studies",
        ["parent_study_id"],
        unique=True,
        schema=_SCHEMA,
        postgresql_where=sa.text("deleted_at IS NULL"),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_index(_INDEX, table_name="studies", schema=_SCHEMA)
    op.drop_constraint(_KEY, "studies", schema=_SCHEMA, type_="foreignkey")
    op.drop_column("studies", "parent_study_id", schema=_SCHEMA)
