"""Keys of people who log in with an identity provider: nobody holds them, browser sessions have their rights."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_SCHEMA = "hpo"
_UNIQUE = "uq_api_keys_project_id_subject"


def upgrade() -> None:
    """Apply."""
    op.add_column("api_keys", sa.Column("subject", sa.Text(), nullable=True), schema=_SCHEMA)
    op.create_unique_constraint(_UNIQUE, "api_keys", ["project_id", "subject"], schema=_SCHEMA)


def downgrade() -> None:
    """Undo. Sessions of people end, their keys stay for those who are named by them."""
    op.execute(
        "DELETE FROM hpo.browser_tokens t USING hpo.api_keys k WHERE k.id = t.api_key_id AND k.subject IS NOT NULL"
    )
    op.drop_constraint(_UNIQUE, "api_keys", schema=_SCHEMA)
    op.drop_column("api_keys", "subject", schema=_SCHEMA)
