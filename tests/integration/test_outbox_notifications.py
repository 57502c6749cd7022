"""Notices reach a real server: signed, in order, each once as far as its receiver can tell, none of what is past."""

import base64
import hmac
import json
import math
from collections.abc import Callable, Iterator
from datetime import timedelta
from hashlib import sha256
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.core.messages import EventKind
from hpo_service.core.settings import Settings
from hpo_service.executors.fake import FakeExecutor
from hpo_service.integrations.delivery import Delivery
from hpo_service.integrations.process import make_sinks
from hpo_service.storage.queries import dispatch
from hpo_service.storage.tables import DEFAULT_PROJECT_ID
from tests.dispatching import loss_of, make, post_study, state_of, turn_until
from tests.receiving import Receiver
from tests.tracked import drain
from trainer.spec import Slice

KEY = b"0123456789abcdef0123456789abcdef"
SECRET = "whsec_" + base64.b64encode(KEY).decode()
Json = dict[str, Any]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver.open() as receiver:
        yield receiver


def bodies(receiver: Receiver) -> list[Json]:
    return [json.loads(got.content) for got in receiver.got]


def url_of(receiver: Receiver) -> str:
    return f"http://127.0.0.1:{receiver.port}/in"


@pytest.fixture
def deliver(engine: Engine, receiver: Receiver) -> Callable[[str], Delivery]:
    """A new process, as far as it matters; it has looked once, so what follows is news."""

    def new(kind: str) -> Delivery:
        url: Json = {f"{kind}_url": url_of(receiver)}
        (sink,) = make_sinks(Settings(webhook_secret=SECRET, notify_private=True, **url), engine)
        delivery = Delivery(engine, sink)
        delivery.turn()
        return delivery

    return new


def run_study(sessions: sessionmaker[Session], executor: FakeExecutor | None = None, **spec: Any) -> None:
    study_id = post_study(sessions, **spec)
    dispatcher, _ = make(sessions, executor)
    turn_until(dispatcher, lambda: state_of(sessions, study_id) in ("completed", "failed"))
    dispatcher.context.proposals.close()


def lose_worker(sessions: sessionmaker[Session], number: int) -> None:
    with sessions.begin() as session:
        payload = {"worker": f"w{number}", "cause": "worker_killed", "message": "<gone> & lost"}
        dispatch.add_event(session, DEFAULT_PROJECT_ID, None, EventKind.WORKER_LOST, payload)


def test_a_study_completes_near_the_end_of_its_budget(
    receiver: Receiver, deliver: Callable[[str], Delivery], sessions: sessionmaker[Session]
) -> None:
    outbox = deliver("webhook")
    run_study(sessions, budget__max_examples=3000)
    drain(outbox)
    assert [body["type"] for body in bodies(receiver)] == ["study.budget", "study.completed"]
    near, end = (body["data"] for body in bodies(receiver))
    assert "of 3000 examples are spent" in near["sentence"]
    assert (end["project"], end["study"]) == ("default", "s")
    assert math.isfinite(end["best_loss"])
    assert end["parameters"]["learning_rate"] > 0


def test_the_signature_is_that_of_the_standard(
    receiver: Receiver, deliver: Callable[[str], Delivery], sessions: sessionmaker[Session]
) -> None:
    outbox = deliver("webhook")
    lose_worker(sessions, 0)
    drain(outbox)
    (got,) = receiver.got
    headers, content = got.headers, got.content
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + content
    expected = base64.b64encode(hmac.new(KEY, signed, sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert headers["content-type"] == "application/json"


def test_only_the_first_trial_that_diverges_is_told(
    receiver: Receiver, deliver: Callable[[str], Delivery], sessions: sessionmaker[Session]
) -> None:
    def loss(work: Slice) -> float:
        return math.nan if work.trial.parameters.learning_rate > 1e-3 else loss_of(work)

    outbox = deliver("webhook")
    run_study(sessions, FakeExecutor(loss))
    drain(outbox)
    assert [body["type"] for body in bodies(receiver)] == ["study.diverged", "study.completed"]
    again = deliver("webhook")
    run_study(sessions, FakeExecutor(loss), metadata__name="t")
    drain(again)
    assert [body["data"]["study"] for body in bodies(receiver)] == ["s", "s", "t", "t"]


def test_outages_keep_order_and_ids(
    receiver: Receiver, deliver: Callable[[str], Delivery], sessions: sessionmaker[Session]
) -> None:
    outbox = deliver("webhook")
    for number in range(4):
        lose_worker(sessions, number)
    receiver.answers = [503, 200, 429, 500, 200, 404]
    assert drain(outbox) == 3
    with sessions() as session:
        results = session.execute(text("SELECT results FROM hpo.outbox_cursors")).scalar_one()
    assert results == {"away": 3, "delivered": 3, "refused": 1}
    told = [
        (body["data"]["worker"], got.headers["webhook-id"])
        for body, got in zip(bodies(receiver), receiver.got, strict=True)
    ]
    assert [worker for worker, _ in told] == ["w0", "w0", "w1", "w1", "w1", "w2", "w3"]
    assert len(set(told)) == 4


def test_slack_gets_sentences_in_which_text_stays_text(
    receiver: Receiver, deliver: Callable[[str], Delivery], sessions: sessionmaker[Session]
) -> None:
    outbox = deliver("slack")
    lose_worker(sessions, 7)
    drain(outbox)
    assert bodies(receiver) == [{"text": "Worker w7 was lost (worker_killed): &lt;gone&gt; &amp; lost"}]


def test_a_notice_that_is_a_day_old_is_no_news(
    receiver: Receiver, deliver: Callable[[str], Delivery], sessions: sessionmaker[Session], engine: Engine
) -> None:
    outbox = deliver("webhook")
    lose_worker(sessions, 0)
    with engine.begin() as connection:
        connection.execute(text("UPDATE hpo.events SET created_at = created_at - :age"), {"age": timedelta(hours=25)})
    lose_worker(sessions, 1)
    receiver.answers = [503]
    assert drain(outbox) == 0
    assert [body["data"]["worker"] for body in bodies(receiver)] == ["w0", "w1"]


def test_a_private_address_is_not_posted_to(
    receiver: Receiver, engine: Engine, sessions: sessionmaker[Session], caplog: pytest.LogCaptureFixture
) -> None:
    url = url_of(receiver).replace("http://", "https://")
    (sink,) = make_sinks(Settings.model_validate({"webhook_url": url, "webhook_secret": SECRET}), engine)
    outbox = Delivery(engine, sink)
    outbox.turn()
    lose_worker(sessions, 0)
    assert drain(outbox) == 0
    assert receiver.got == []
    assert "HPO_NOTIFY_PRIVATE" in caplog.text
