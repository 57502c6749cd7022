"""The API's pure parts."""

import socket

import pytest

from hpo_service.api.http.auth import bearer
from hpo_service.api.process import listen
from hpo_service.auth.principals import digest, parse_key
from hpo_service.core.errors import Conflict, InvalidRequest, SetupError
from hpo_service.core.messages import IntentKind
from hpo_service.core.study_rules import StudyState
from hpo_service.formatting.html import Markup, join, page, tag
from hpo_service.services.common.idempotency import Repetition
from hpo_service.services.studies.creation import merge_patch
from hpo_service.services.studies.pending_state import expected_state, next_state, require_open


def test_keys_are_parsed_strictly() -> None:
    secret = "aB_-" * 10 + "xyz"
    assert parse_key(f"hpo_key_12_{secret}") == (12, secret)
    for wrong in ("", "hpo_key_12_", f"hpo_key_0_{secret}", f"hpo_key_١_{secret}", f"hpo_key_1_{secret}x", secret):
        assert parse_key(wrong) is None
    assert len(digest(secret)) == 64


def test_bearer() -> None:
    assert bearer("Bearer abc") == bearer("bearer  abc ") == "abc"
    for header in ("", "Bearer", "Bearer ", "Basic abc"):
        assert bearer(header) is None


def test_markup_is_escaped_unless_it_is_markup() -> None:
    assert tag("a", "<b>", href='"x"') == '<a href="&quot;x&quot;">&lt;b&gt;</a>'
    assert tag("p", tag("b", "x"), None, 3, class_="y") == '<p class="y"><b>x</b>3</p>'
    assert isinstance(join("<", tag("br")), Markup)
    assert "<title>&lt;/title&gt;</title>" in page("</title>")


@pytest.mark.parametrize("current", StudyState)
@pytest.mark.parametrize("kind", [IntentKind.PAUSE, IntentKind.RESUME, IntentKind.STOP, IntentKind.CANCEL])
def test_no_intent_leads_from_an_end(current: StudyState, kind: IntentKind) -> None:
    if current in ("completed", "failed", "cancelled"):
        with pytest.raises(Conflict):
            next_state("s", current, kind)


def test_states_are_foreseen() -> None:
    running = StudyState.RUNNING
    assert expected_state("s", running, ["pause", "resume", "extend", "enqueue"]) is running
    assert expected_state("s", running, ["resume", "cancel", "pause"]) is StudyState.CANCELLING
    assert expected_state("s", StudyState.QUEUED, ["create", "pause"]) is StudyState.PAUSED
    assert expected_state("s", StudyState.QUEUED, ["stop"]) is StudyState.COMPLETED
    assert expected_state("s", StudyState.PAUSED, ["stop"]) is StudyState.STOPPING
    require_open("s", StudyState.PAUSED, "grow")
    with pytest.raises(Conflict, match="clone"):
        require_open("s", StudyState.STOPPING, "grow")


def test_merge_patch() -> None:
    document = {"a": {"b": 1, "c": 2}, "d": [1], "e": 3}
    assert merge_patch(document, {"a": {"b": None, "x": {"y": 1}}, "d": [2], "e": {"f": 1}}) == {
        "a": {"c": 2, "x": {"y": 1}},
        "d": [2],
        "e": {"f": 1},
    }
    assert document["a"] == {"b": 1, "c": 2}


@pytest.mark.parametrize("key", ["", " ", "a b", "ü", "x" * 256, "a\n"])
def test_idempotency_keys_are_plain(key: str) -> None:
    with pytest.raises(InvalidRequest):
        Repetition(1, key, "create", {})


def test_a_taken_port_is_told_with_its_remedy() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SetupError, match=rf"Port {port} .*taken.*HPO_PORT"):
            listen("127.0.0.1", port)
    with pytest.raises(SetupError, match=r"192\.0\.2\.1"):
        listen("192.0.2.1", port)
