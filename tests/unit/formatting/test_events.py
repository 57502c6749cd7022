"""Events as sentences."""

from typing import Any

import pytest

from hpo_service.core.messages import EventKind
from hpo_service.formatting.events import describe


@pytest.mark.parametrize(
    ("kind", "trial", "payload", "words"),
    [
        ("study.state", None, {"state": "failed", "message": "no data"}, "study is failed: no data"),
        ("study.state", None, {"state": "running", "message": ""}, "study is running"),
        ("intent.refused", None, {"intent": "resume", "error": "it runs"}, "resume was refused: it runs"),
        ("budget.nearly_spent", None, {"message": "80 % of the USD are spent"}, "80 % of the USD are spent"),
        ("worker.lost", None, {"worker": "w1", "cause": "node_lost", "message": "gone"}, "worker w1 is lost: gone"),
        ("worker.refused", None, {"worker": "w1", "node": "n", "message": "m"}, "worker w1 on n gets no work: m"),
        ("trial.completed", 3, {"loss": 1.25}, "trial 3 is complete with loss 1.25"),
        ("trial.reported", 3, {"loss": None, "examples": 7}, "trial 3 has loss that is not finite after 7 examples"),
        ("trial.failed", 3, {"outcome": "oom", "message": ""}, "trial 3 failed (oom)"),
        ("slice.retried", 3, {"outcome": "lost", "message": "m"}, "trial 3 is tried again after lost: m"),
        (
            "slice.retried",
            3,
            {"outcome": "preempted", "message": ""},
            "trial 3 was stopped on request and will go on from where it is",
        ),
        ("slice.progress", 3, {"examples_seen": 5}, None),
        ("something.new", None, {}, None),
    ],
)
def test_sentences(kind: str, trial: int | None, payload: dict[str, Any], words: str | None) -> None:
    assert describe(kind, trial, payload) == words


def test_every_kind_of_worker_event_has_words() -> None:
    payload = {"worker": "w", "node": "n", "message": "m", "places": []}
    kinds = [kind for kind in EventKind if kind.startswith("worker.")]
    assert [kind for kind in kinds if describe(kind, None, payload) is None] == []
