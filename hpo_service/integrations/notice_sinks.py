"""Sinks that post notices: signed webhooks, and Slack."""

import base64
import binascii
import hmac
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from sqlalchemy.orm import Session, sessionmaker

from hpo_service.integrations.base import SinkAway, SinkRefused
from hpo_service.integrations.notices import Notice, read_notices
from hpo_service.integrations.poster import Poster
from hpo_service.storage.queries.outbox import OutboxEvent, count_result

log = logging.getLogger(__name__)

#: A notice that could not be handed over for so long is no news any more.
_NEWS = timedelta(hours=24)
_SECRET_PREFIX = "whsec_"  # noqa: S105 (how such secrets begin)


@dataclass(frozen=True)
class Message:
    """What is posted."""

    content: bytes
    headers: Mapping[str, str]


Render = Callable[[str, Notice], Message]


class NotificationSink:
    """Posts a message for each notice, in order. What happened before it was switched on is left out."""

    from_now = True

    def __init__(self, name: str, sessions: sessionmaker[Session], poster: Poster, *, url: str, render: Render) -> None:
        self.name = name
        self._sessions = sessions
        self._poster = poster
        self._url = url
        self._render = render

    def take(self, outbox: str, events: Sequence[OutboxEvent]) -> Iterator[int]:
        """The cursor moves behind every message."""
        with self._sessions() as session:
            notices = read_notices(session, events)
        for notice in notices:
            try:
                self._post(outbox, notice)
                self._count("delivered")
            except SinkAway:
                self._count("away")
                raise
            except SinkRefused as error:
                self._count("refused")
                log.error(
                    "%s goes without the notice %s of event %d: %s", self.name, notice.kind, notice.event_id, error
                )
            yield notice.event_id
        yield events[-1].id

    def _count(self, result: str) -> None:
        with self._sessions.begin() as session:
            count_result(session, self.name, result)

    def _post(self, outbox: str, notice: Notice) -> None:
        message = self._render(outbox, notice)
        try:
            self._poster.post(self._url, message.content, message.headers)
        except SinkAway as error:
            if datetime.now(UTC) - notice.at > _NEWS:
                raise SinkRefused(f"not taken for {_NEWS.total_seconds() / 3600:.0f} hours: {error}") from error
            raise


def webhook(secret: str) -> Render:
    """Signed as Standard Webhooks 1 says: HMAC-SHA256 of id, Unix time and content. The id is the same in every try.

    `secret` is `whsec_` and base64, or any text. See https://www.standardwebhooks.com.
    """
    key = _key(secret)

    def render(outbox: str, notice: Notice) -> Message:
        body = {
            "type": notice.kind,
            "timestamp": notice.at.isoformat(),
            "data": {
                "project": notice.project,
                "study": notice.study,
                "sentence": notice.sentence,
                **notice.facts,
            },
        }
        content = json.dumps(body, ensure_ascii=False).encode()
        message_id, seconds = f"{outbox}-{notice.event_id}", str(int(time.time()))
        signed = hmac.digest(key, f"{message_id}.{seconds}.".encode() + content, sha256)
        headers = {
            "Content-Type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": seconds,
            "webhook-signature": f"v1,{base64.b64encode(signed).decode()}",
        }
        return Message(content, headers)

    return render


def slack(_outbox: str, notice: Notice) -> Message:
    """For an incoming webhook of Slack's; names and messages of users stay text."""
    text = notice.sentence.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return Message(json.dumps({"text": text}).encode(), {"Content-Type": "application/json"})


def _key(secret: str) -> bytes:
    if secret.startswith(_SECRET_PREFIX):
        try:
            return base64.b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True)
        except binascii.Error:
            pass
    return secret.encode()
