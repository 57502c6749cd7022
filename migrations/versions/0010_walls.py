"""Row-level policies: a transaction that named its project sees the rows of no other one."""

from migrations.walls import open_to_readers, raise_wall, take_down

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_TABLES = (
    *("studies", "intents", "slices", "attempts", "study_usage", "jobs", "events", "workers"),
    *("promotions", "promotion_approvals", "api_keys", "browser_tokens", "idempotency_keys"),
    *("leases", "outbox_cursors"),
)


def upgrade() -> None:
    """Apply."""
    raise_wall("projects", "id")
    for table in _TABLES:
        raise_wall(table)
    open_to_readers("workers")


def downgrade() -> None:
    """Undo."""
    for table in ("projects", *_TABLES):
        take_down(table)
