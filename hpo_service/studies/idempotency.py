"""The same request twice is one request: answers are remembered under the caller's idempotency key."""

import json
import re
from hashlib import sha256
from typing import Any

from sqlalchemy.orm import Session

from hpo_service.errors import IdempotencyMismatch, InvalidRequest
from hpo_service.repository import idempotency

_KEY = re.compile(r"[\x21-\x7e]{1,255}")


class Repetition:
    """One request with an optional key. Without one it is never remembered."""

    def __init__(self, project_id: int, key: str | None, operation: str, body: object) -> None:
        if key is not None and not _KEY.fullmatch(key):
            raise InvalidRequest("Idempotency-Key must be 1 to 255 printable ASCII characters without spaces.")
        self._project_id = project_id
        self._key = key
        canonical = json.dumps([operation, body], sort_keys=True, separators=(",", ":"))
        self._digest = sha256(canonical.encode()).hexdigest()

    def answer(self, session: Session) -> dict[str, Any] | None:
        """What was answered before; equal requests wait for each other here until the transaction ends.

        Raises:
            IdempotencyMismatch: the key came with another request.
        """
        if self._key is None:
            return None
        idempotency.lock(session, self._project_id, self._key)
        known = idempotency.find(session, self._project_id, self._key)
        if known is None:
            return None
        if known.request_sha256 != self._digest:
            raise IdempotencyMismatch(
                "this Idempotency-Key came with another request in the last 24 hours; a new request needs a new key."
            )
        return known.body

    def remember(self, session: Session, status: int, body: dict[str, Any]) -> None:
        """Keep the answer, in the transaction that did the work."""
        if self._key is not None:
            answer = idempotency.Remembered(request_sha256=self._digest, status=status, body=body)
            idempotency.remember(session, self._project_id, self._key, answer)
