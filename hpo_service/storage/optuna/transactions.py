"""What a storage must know of PostgreSQL's transactions and clock."""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Text, cast, func, select
from sqlalchemy.types import UserDefinedType

from hpo_service.storage.optuna.codec import to_local


class _TransactionId(UserDefinedType[Any]):
    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        return "xid8"


class Witness:
    """Remembers the transaction of the last flush, and how far this machine's clock is from the database's."""

    def __init__(self) -> None:
        self._last: str | None = None
        self._offset = timedelta()

    def now(self) -> datetime:
        """The database's time as the naive local time that FrozenTrial holds."""
        return to_local(datetime.now(UTC) + self._offset)

    def enter(self, connection: Connection) -> str | None:
        """Note the transaction that is about to be written in. Returns why that must not be, None if it may."""
        last_status = func.pg_xact_status(cast(self._last, _TransactionId()))
        before = datetime.now(UTC)
        current, status, now = connection.execute(
            select(cast(func.pg_current_xact_id(), Text), last_status, func.clock_timestamp())
        ).one()
        after = datetime.now(UTC)
        # Within the round trip the two clocks cannot be told apart.
        self._offset = now - min(max(now, before), after)
        if current != self._last and status in ("aborted", "in progress"):
            return f"the transaction of its last flush is {status}"
        self._last = current
        return None
