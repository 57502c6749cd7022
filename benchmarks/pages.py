"""Pages of a study with ten thousand trials, while a dispatcher works on it and without.

The study is generated (`benchmarks.pages_seed`): ten losses a trial, a thousand slices that run, every slice, attempt
and event. The dispatcher is a process of its own that drives it with simulated slices, `--rate` results a second.

Run `python -m benchmarks.pages`; the last line is one JSON object: p50, p95 and the first of 50 requests each, in
milliseconds, by page and by `quiet` or `busy`.
"""

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.dispatch import EXAMPLES_A_RUNG, NAME, RESULTS_PER_SECOND, RUNGS
from benchmarks.dispatch_lists import p50_ms, p95_ms, page_seconds, served
from benchmarks.dispatch_side import TimedExecutor
from benchmarks.pages_seed import seed
from benchmarks.storage import database
from hpo_service.dispatcher.loop import Dispatcher
from hpo_service.storage.database import make_engine, session_factory

_READY_SECONDS = 120.0
_RESULTS_FIRST = 100


def work(url: str, running: int, rate: float, ready: Event, stop: Event) -> None:
    """A dispatcher until it is told to stop; `ready` once it takes results."""
    engine = make_engine(url, application_name="benchmark")
    executor = TimedExecutor(running, running / rate, RUNGS * EXAMPLES_A_RUNG)
    with TemporaryDirectory(prefix="hpo-bench-") as folder:
        dispatcher = Dispatcher(session_factory(engine), executor, snapshots=Path(folder))
        while not stop.is_set():
            dispatcher.turn()
            if executor.ended >= _RESULTS_FIRST:
                ready.set()
        dispatcher.context.proposals.close()
        dispatcher.context.leadership.release()
    print(f"the dispatcher took {executor.ended} results", file=sys.stderr, flush=True)


@contextmanager
def dispatching(url: str, running: int, rate: float) -> Iterator[None]:
    """A dispatcher works on all studies while the block runs."""
    spawn = multiprocessing.get_context("spawn")
    ready, stop = spawn.Event(), spawn.Event()
    process = spawn.Process(target=work, args=(url, running, rate, ready, stop))
    process.start()
    try:
        if not ready.wait(_READY_SECONDS):
            raise RuntimeError(f"the dispatcher took no results within {_READY_SECONDS:.0f} s")
        yield
    finally:
        stop.set()
        process.join(60)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000, help="trials of the study")
    parser.add_argument("--running", type=int, default=1000, help="slices that run")
    parser.add_argument("--rate", type=float, default=RESULTS_PER_SECOND, help="slices that end in a second")
    parser.add_argument("--requests", type=int, default=50, help="requests of each kind")
    arguments = parser.parse_args()
    found: dict[str, dict[str, dict[str, float]]] = {}
    with database() as url:
        engine = make_engine(url, application_name="benchmark")
        begun = time.monotonic()
        seed(engine, arguments.trials, arguments.running)
        print(f"seeded in {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
        with served(engine) as client:
            found["quiet"] = _figures(page_seconds(client, NAME, arguments.requests))
            print(json.dumps(found["quiet"]), file=sys.stderr, flush=True)
            with dispatching(url, arguments.running, arguments.rate):
                found["busy"] = _figures(page_seconds(client, NAME, arguments.requests))
        engine.dispose()
    print(json.dumps({"trials": arguments.trials, "running": arguments.running} | found))


def _figures(taken: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    return {
        name: {
            "p50_ms": round(p50_ms(seconds), 1),
            "p95_ms": round(p95_ms(seconds), 1),
            "first_ms": round(1000 * seconds[0], 1),
        }
        for name, seconds in taken.items()
    }


if __name__ == "__main__":
    main()
