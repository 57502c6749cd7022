"""Workers and slices as rows."""

from hpo_service.cli.slice import slice_row
from hpo_service.cli.views import ending, where
from hpo_service.cli.worker import worker_row

WORKER = {
    "name": "local-0.1",
    "state": "quarantined",
    "pending": [],
    "node": "n",
    "places": ["n/0", "n/1"],
    "device": "H100",
    "auto_dtype": "bfloat16",
    "repeatable": False,
    "slices": [{"study": "s", "trial_number": 3, "slice_id": 1, "attempt": 1}],
    "started_at": "2026-11-25T03:00:00.5Z",
    "message": "its device is faulty",
}
SLICE = {
    "id": 7,
    "trial_number": 3,
    "until_examples": 100,
    "state": "running",
    "attempt": 2,
    "worker": "local-0.1",
    "progress": {"phase": "training", "examples_seen": 24},
    "seconds": 300.0,
    "lost_seconds": 180.0,
    "cost_usd": 0.25,
    "failures_by_cause": {"no_progress": 1, "worker_ended": 2},
}


def test_a_worker() -> None:
    shown = ["local-0.1", "quarantined", "n/0, n/1", "H100", "bfloat16", "no", "s 3", "2026-11-25T03:00:00"]
    shown += ["its device is faulty"]
    assert worker_row(WORKER) == shown
    asked = worker_row(WORKER | {"pending": ["worker_release"], "places": [], "slices": []})
    assert asked[1:7] == ["quarantined (worker_release asked for)", "n", "H100", "bfloat16", "no", ""]


def test_a_slice() -> None:
    shown = [7, 3, 100, "running", 2, "local-0.1", "training at 24", "~5 min", "~0.25 USD"]
    shown += ["1 no_progress, 2 worker_ended"]
    assert slice_row(SLICE) == shown
    free = {"state": "done", "failures_by_cause": {}, "lost_seconds": 0.0, "cost_usd": 0.0}
    assert slice_row(SLICE | free)[-4:] == [None, "5 min", None, None]


def test_an_attempt_says_where_it_was_and_why_it_ended() -> None:
    attempt = {"worker": "local-0.1", "node": "n", "outcome": "lost", "cause": "no_progress"}
    assert (where(attempt), ending(attempt)) == ("local-0.1 on n", "lost (no_progress)")
    running = {"worker": None, "node": None, "outcome": None, "cause": None}
    assert (where(running), ending(running)) == (None, "running")
