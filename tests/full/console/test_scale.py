"""Pages of a study with a thousand trials come as fast as a reader expects."""

import time
from statistics import median

import httpx
import pytest
from sqlalchemy import text

from hpo_service.executors.fake import FakeExecutor
from tests import serving
from tests.browsing import Console
from tests.dispatching import loss_of, make, turn_until

TRIALS = 1000
TIMES = 9
PATHS = ("/", "/studies/large", "/studies/large?order=newest&page=20", "/v1/studies/large/report")


def seconds(client: httpx.Client, path: str) -> tuple[float, float, float]:
    """Of the first answer, the median of the next ones, and the processor time of one without PostgreSQL's."""
    took, begun_at = [], time.process_time()
    for _ in range(TIMES + 1):
        begun = time.perf_counter()
        assert client.get(path).status_code == 200
        took.append(time.perf_counter() - begun)
    return took[0], median(took[1:]), (time.process_time() - begun_at) / len(took)


def ended(console: Console) -> bool:
    """Asked of the database, because an answer of the API would take longer than a turn of the dispatcher."""
    with console.sessions.begin() as session:
        return bool(session.scalar(text("SELECT count(*) = 1 FROM hpo.studies WHERE state = 'completed'")))


@pytest.mark.timeout(900)
def test_pages_with_a_thousand_trials(console: Console) -> None:
    search = {"strategy": "asha", "sampler": "qmc", "deterministic": True, "seed": 3}
    console.client.create_study(serving.spec("large", search=search, budget={"max_trials": TRIALS}))
    dispatcher, _ = make(console.sessions, FakeExecutor(loss_of, total_examples=serving.ROWS, workers=100))
    turn_until(dispatcher, lambda: ended(console), turns=10_000)
    with httpx.Client(base_url=console.url, headers=serving.bearer(console.key), trust_env=False, timeout=60) as client:
        for path in PATHS:
            first, later, busy = seconds(client, path)
            print(f"{path}: first {first * 1000:.0f} ms, then {later * 1000:.0f} ms, busy {busy * 1000:.0f} ms")
            assert max(first, later) < 10
