"""Scopes for everything that a key may do; keys that end, and when each was used last."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_SCHEMA = "hpo"
_TIMES = ("expires_at", "last_used_at")
_BEFORE = """'["promote", "approve"]'::jsonb"""


def upgrade() -> None:
    """Apply. Keys that exist keep what they could do; the admin key of `hpo up` gets everything."""
    for name in _TIMES:
        op.add_column("api_keys", sa.Column(name, sa.TIMESTAMP(timezone=True), nullable=True), schema=_SCHEMA)
    op.alter_column("api_keys", "scopes", server_default=None, schema=_SCHEMA)
    op.execute("""UPDATE hpo.api_keys SET scopes = '["study:read", "study:write"]'::jsonb || scopes""")
    op.execute(
        """UPDATE hpo.api_keys SET scopes = scopes || '["admin", "audit:read"]'::jsonb
            WHERE label = 'admin' AND scopes @> '["promote", "approve"]'::jsonb"""
    )


def downgrade() -> None:
    """Undo."""
    op.execute("""UPDATE hpo.api_keys SET scopes = scopes - 'study:read' - 'study:write' - 'admin' - 'audit:read'""")
    op.alter_column("api_keys", "scopes", server_default=sa.text(_BEFORE), schema=_SCHEMA)
    for name in reversed(_TIMES):
        op.drop_column("api_keys", name, schema=_SCHEMA)
