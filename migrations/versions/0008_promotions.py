"""Promotions and their approvals, which never change; scopes of keys; whether a project asks for approval."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_SCHEMA = "hpo"
_NOW = sa.text("clock_timestamp()")
_TIME = sa.TIMESTAMP(timezone=True)
_TABLES = ("promotions", "promotion_approvals")
_REFUSAL = """
CREATE FUNCTION hpo.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of %.% never change', TG_TABLE_SCHEMA, TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$
"""


def upgrade() -> None:
    """Apply. Keys that exist keep every right."""
    everything = sa.text("""'["promote", "approve"]'::jsonb""")
    op.add_column("api_keys", sa.Column("scopes", JSONB, nullable=False, server_default=everything), schema=_SCHEMA)
    approval: sa.Column[bool] = sa.Column("promotion_approval", sa.Boolean(), nullable=False, server_default=sa.false())
    op.add_column("projects", approval, schema=_SCHEMA)
    _promotions()
    op.create_table(
        "promotion_approvals",
        sa.Column("promotion_id", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("api_key_id", sa.BigInteger(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False, server_default=_NOW),
        sa.PrimaryKeyConstraint("promotion_id", name="pk_promotion_approvals"),
        _references("promotion_approvals", "project_id", "projects"),
        _references("promotion_approvals", "api_key_id", "api_keys"),
        sa.ForeignKeyConstraint(
            ["project_id", "promotion_id"],
            ["hpo.promotions.project_id", "hpo.promotions.id"],
            name="fk_promotion_approvals_project_id_promotion_id",
        ),
        schema=_SCHEMA,
    )
    op.execute(_REFUSAL)
    for table in _TABLES:
        op.execute(
            f"CREATE TRIGGER never_changes BEFORE UPDATE OR DELETE OR TRUNCATE ON hpo.{table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION hpo.refuse_change()"
        )


def downgrade() -> None:
    """Undo."""
    for table in reversed(_TABLES):
        op.drop_table(table, schema=_SCHEMA)
    op.execute("DROP FUNCTION hpo.refuse_change()")
    op.drop_column("projects", "promotion_approval", schema=_SCHEMA)
    op.drop_column("api_keys", "scopes", schema=_SCHEMA)


def _promotions() -> None:
    op.create_table(
        "promotions",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("study_id", sa.BigInteger(), nullable=False),
        sa.Column("trial_number", sa.BigInteger(), nullable=False),
        sa.Column("document", JSONB, nullable=False),
        sa.Column("facts", JSONB, nullable=False),
        sa.Column("rollback_of", sa.BigInteger(), nullable=True),
        sa.Column("needs_approval", sa.Boolean(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False, server_default=""),
        sa.Column("api_key_id", sa.BigInteger(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False, server_default=_NOW),
        sa.PrimaryKeyConstraint("id", name="pk_promotions"),
        sa.UniqueConstraint("project_id", "name", "version", name="uq_promotions_project_id_name_version"),
        sa.UniqueConstraint("project_id", "id", name="uq_promotions_project_id_id"),
        _references("promotions", "project_id", "projects"),
        _references("promotions", "api_key_id", "api_keys"),
        sa.ForeignKeyConstraint(
            ["project_id", "study_id"],
            ["hpo.studies.project_id", "hpo.studies.id"],
            name="fk_promotions_project_id_study_id",
        ),
        schema=_SCHEMA,
    )


def _references(table: str, column: str, other: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [f"hpo.{other}.id"], name=f"fk_{table}_{column}")
