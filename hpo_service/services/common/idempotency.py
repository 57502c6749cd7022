"""The same request twice is one request: answers are remembered under the caller's idempotency key."""

import json
import re
from collections.abc import Callable
from hashlib import sha256
from typing import Any, TypeVar

from sqlalchemy.orm import Session, sessionmaker

from hpo_service.core.errors import IdempotencyMismatch, InvalidRequest
from hpo_service.services.common.schemas import Document
from hpo_service.storage.queries import idempotency
from trainer.common.failpoints import Commit, after_commit, before_commit

Prepared = TypeVar("Prepared")

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

    def once(
        self,
        sessions: sessionmaker[Session],
        prepare: Callable[[], Prepared],
        write: Callable[[Session, Prepared], Document],
        *,
        status: int,
        commit: Commit = Commit.STEER,
    ) -> dict[str, Any]:
        """What was answered before, or what `write` answers to what `prepare` found.

        No transaction is open while files are read, so an equal request is looked for before and after.
        """
        with sessions.begin() as session:
            known = self.answer(session)
        if known is not None:
            return known
        prepared = prepare()
        with sessions.begin() as session:
            known = self.answer(session)
            if known is None:
                known = write(session, prepared).model_dump(mode="json")
                self.remember(session, status, known)
            before_commit(commit)
        after_commit(commit)
        return known
