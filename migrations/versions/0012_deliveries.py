"""Deliveries of promotions, which never change; jobs that are steps of one, and what a training leaves on its way."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from migrations.walls import raise_wall

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_SCHEMA = "hpo"
_NOW = sa.text("clock_timestamp()")
_STEP = "fk_jobs_project_id_delivery_id"


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "deliveries",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("promotion_id", sa.BigInteger(), nullable=False),
        sa.Column("merge", sa.Boolean(), nullable=False),
        sa.Column("quantize", sa.Text(), nullable=True),
        sa.Column("retrain", sa.Boolean(), nullable=False),
        sa.Column("offered", JSONB, nullable=False),
        sa.Column("api_key_id", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=_NOW),
        sa.PrimaryKeyConstraint("id", name="pk_deliveries"),
        sa.UniqueConstraint("project_id", "id", name="uq_deliveries_project_id_id"),
        sa.ForeignKeyConstraint(["project_id"], ["hpo.projects.id"], name="fk_deliveries_project_id"),
        sa.ForeignKeyConstraint(["api_key_id"], ["hpo.api_keys.id"], name="fk_deliveries_api_key_id"),
        sa.ForeignKeyConstraint(
            ["project_id", "promotion_id"],
            ["hpo.promotions.project_id", "hpo.promotions.id"],
            name="fk_deliveries_project_id_promotion_id",
        ),
        schema=_SCHEMA,
    )
    op.create_index("ix_deliveries_promotion_id", "deliveries", ["promotion_id"], schema=_SCHEMA)
    op.execute(
        "CREATE TRIGGER never_changes BEFORE UPDATE OR DELETE OR TRUNCATE ON hpo.deliveries "
        "FOR EACH STATEMENT EXECUTE FUNCTION hpo.refuse_change()"
    )
    raise_wall("deliveries")
    op.add_column("jobs", sa.Column("delivery_id", sa.BigInteger(), nullable=True), schema=_SCHEMA)
    op.create_index("ix_jobs_delivery_id", "jobs", ["delivery_id"], schema=_SCHEMA)
    for name, empty in (("snapshots", "[]"), ("progress", "{}")):
        default = sa.text(f"'{empty}'::jsonb")
        op.add_column("jobs", sa.Column(name, JSONB, nullable=False, server_default=default), schema=_SCHEMA)
    ours, theirs = ["project_id", "delivery_id"], ["project_id", "id"]
    op.create_foreign_key(_STEP, "jobs", "deliveries", ours, theirs, source_schema=_SCHEMA, referent_schema=_SCHEMA)


def downgrade() -> None:
    """Undo."""
    op.drop_constraint(_STEP, "jobs", schema=_SCHEMA)
    op.drop_index("ix_jobs_delivery_id", "jobs", schema=_SCHEMA)
    for name in ("progress", "snapshots", "delivery_id"):
        op.drop_column("jobs", name, schema=_SCHEMA)
    op.drop_table("deliveries", schema=_SCHEMA)
