"""Who leads: this process holds the lease while it renews it in time."""

import os
import secrets
import socket
import time

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.core.errors import LeaseLost
from hpo_service.storage.queries import leases
from trainer.common.failpoints import Commit, after_commit, before_commit

_RENEW_SECONDS = 2.0
#: longer than a leader waits before it tries again to reach a database that was away
_GRACE_SECONDS = 6.0


class Leadership:
    """Acquires and renews the lease of this process; `epoch` fences every write."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self._sessions = sessions
        self._renewed_at = float("-inf")
        self._away_at = float("-inf")
        self.holder = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self.epoch: int | None = None

    def hold(self) -> bool:
        """Take or renew the lease when that is due. False while another dispatcher leads.

        After an outage of the database every lease has expired. Who led before it goes on, as long as it lives: others
        leave it a time of grace, since its workers and what they did meanwhile would be lost with its lead.

        Raises LeaseLost when this process led before and another leads now, or led in between.
        """
        if time.monotonic() - self._renewed_at < _RENEW_SECONDS:
            return self.epoch is not None
        epoch = self._acquire()
        if self.epoch is not None and epoch != self.epoch:
            raise LeaseLost(f"dispatcher {self.holder} lost the lease of epoch {self.epoch}; another one leads.")
        self.epoch = epoch
        if epoch is not None:
            self._renewed_at = time.monotonic()
        return epoch is not None

    def _acquire(self) -> int | None:
        grace = time.monotonic() - self._away_at < _GRACE_SECONDS
        try:
            with self._sessions.begin() as session:
                epoch = leases.acquire(session, self.holder, only_own=grace)
                before_commit(Commit.LEASE)
        except DBAPIError:
            self._away_at = time.monotonic()
            raise
        after_commit(Commit.LEASE)
        return epoch

    def fence(self, session: Session) -> None:
        """First statement of a writing transaction."""
        if self.epoch is None:
            raise LeaseLost(f"dispatcher {self.holder} does not hold the lease.")
        leases.fence(session, self.holder, self.epoch)

    def release(self) -> None:
        """Let another dispatcher take over at once."""
        if self.epoch is not None:
            with self._sessions.begin() as session:
                leases.release(session, self.holder, self.epoch)
                before_commit(Commit.RELEASE)
            after_commit(Commit.RELEASE)
            self.epoch = None
