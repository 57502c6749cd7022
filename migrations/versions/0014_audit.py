"""The audit log: a chain of rows for each project, and where it ends."""

import sqlalchemy as sa
from alembic import op

from migrations.walls import raise_wall

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_SCHEMA = "hpo"
_TABLES = ("audit", "audit_heads")
# A row that does not follow the last one is refused, whoever writes it.
_EXTEND = """
CREATE FUNCTION hpo.extend_audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.number = 1 THEN
        INSERT INTO hpo.audit_heads (project_id, number, hash) VALUES (NEW.project_id, 1, NEW.hash);
    ELSE
        UPDATE hpo.audit_heads SET number = NEW.number, hash = NEW.hash
         WHERE project_id = NEW.project_id AND number = NEW.number - 1 AND hash = NEW.previous;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'row % of hpo.audit does not follow the last one', NEW.number
                USING ERRCODE = 'restrict_violation';
        END IF;
    END IF;
    RETURN NEW;
END $$
"""


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "audit",
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("key_id", sa.BigInteger(), nullable=True),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("object", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("status", sa.BigInteger(), nullable=True),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("client", sa.Text(), nullable=True),
        sa.Column("details", sa.Text(), nullable=False),
        sa.Column("previous", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "number", name="pk_audit"),
        sa.ForeignKeyConstraint(["project_id"], ["hpo.projects.id"], name="fk_audit_project_id"),
        schema=_SCHEMA,
    )
    op.create_index("ix_audit_project_id_at", "audit", ["project_id", "at"], schema=_SCHEMA)
    op.create_table(
        "audit_heads",
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", name="pk_audit_heads"),
        sa.ForeignKeyConstraint(["project_id"], ["hpo.projects.id"], name="fk_audit_heads_project_id"),
        schema=_SCHEMA,
    )
    op.execute(_EXTEND)
    op.execute("CREATE TRIGGER extend AFTER INSERT ON hpo.audit FOR EACH ROW EXECUTE FUNCTION hpo.extend_audit()")
    op.execute(
        "CREATE TRIGGER never_changes BEFORE UPDATE OR DELETE OR TRUNCATE ON hpo.audit "
        "FOR EACH STATEMENT EXECUTE FUNCTION hpo.refuse_change()"
    )
    op.execute("REVOKE UPDATE, DELETE, TRUNCATE ON hpo.audit FROM CURRENT_USER")
    op.execute(
        "CREATE TRIGGER only_grows BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON hpo.audit_heads "
        "FOR EACH STATEMENT WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION hpo.refuse_change()"
    )
    for table in _TABLES:
        raise_wall(table)


def downgrade() -> None:
    """Undo."""
    for table in _TABLES:
        op.drop_table(table, schema=_SCHEMA)
    op.execute("DROP FUNCTION hpo.extend_audit()")
