"""Leadership: one row, the database's clock, and an epoch that every write of a dispatcher checks."""

from sqlalchemy import text
from sqlalchemy.orm import Session

from hpo_service.core.errors import LeaseLost
from hpo_service.storage.tables import DEFAULT_PROJECT_ID, DISPATCHER_LEASE

LEASE_SECONDS = 8.0

_ACQUIRE = text(
    """
    INSERT INTO hpo.leases AS held (name, project_id, holder, epoch, expires_at)
    VALUES (:name, :project, :holder, 1, clock_timestamp() + make_interval(secs => :seconds))
    ON CONFLICT (name) DO UPDATE
       SET holder = excluded.holder,
           epoch = held.epoch + CASE WHEN held.holder = excluded.holder THEN 0 ELSE 1 END,
           expires_at = excluded.expires_at
     WHERE held.holder = excluded.holder OR (held.expires_at < clock_timestamp() AND NOT :only_own)
    RETURNING epoch
    """
)
_FENCE = text(
    """
    SELECT 1 FROM hpo.leases
     WHERE name = :name AND holder = :holder AND epoch = :epoch AND expires_at > clock_timestamp()
       FOR SHARE
    """
)
_RELEASE = text(
    "UPDATE hpo.leases SET expires_at = clock_timestamp() WHERE name = :name AND holder = :holder AND epoch = :epoch"
)


def acquire(session: Session, holder: str, *, only_own: bool = False) -> int | None:
    """Take or renew the dispatcher's lease; its epoch, or None while another holder's lease is valid.

    `only_own`: the lease of another is left alone, even if it has expired.
    """
    values = {
        "name": DISPATCHER_LEASE,
        "project": DEFAULT_PROJECT_ID,
        "holder": holder,
        "seconds": LEASE_SECONDS,
        "only_own": only_own,
    }
    epoch = session.execute(_ACQUIRE, values).scalar_one_or_none()
    return None if epoch is None else int(epoch)


def fence(session: Session, holder: str, epoch: int) -> None:
    """First statement of every transaction that writes: raise LeaseLost unless we lead, and keep it so until commit."""
    values = {"name": DISPATCHER_LEASE, "holder": holder, "epoch": epoch}
    if session.execute(_FENCE, values).scalar_one_or_none() is None:
        raise LeaseLost(f"dispatcher {holder} no longer holds the lease of epoch {epoch}; it must stand by.")


def release(session: Session, holder: str, epoch: int) -> None:
    """Let the next dispatcher take over at once."""
    session.execute(_RELEASE, {"name": DISPATCHER_LEASE, "holder": holder, "epoch": epoch})
