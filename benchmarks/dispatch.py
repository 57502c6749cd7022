"""The dispatcher at scale: one study with many running slices, on a real PostgreSQL, in real time.

Slices are simulated (the `fake` executor on a schedule); all else is what runs in production: asha on ten rungs, tpe
for the first 2,000 trials and qmc after them, every result and every decision committed. asha ends most trials early:
it begins about one for two results; with `--strategy none` each trial takes all ten rungs, one for ten results.

- `turnaround_p95_ms`: from a slice's end until the next one is submitted in its place, commits included.
- `results_per_s`, `asks_per_s`: results that were taken and trials that were begun, over the time measured.
- `cpu_ms_per_result`: processor time of this process, which a busy machine does not change.
- `rss_mb`: the largest resident size of this process, which holds the dispatcher and the simulated workers.
- `open_s`: until another dispatcher has read the study.
- `list_p95_ms`, `show_p95_ms`, `watch_p95_ms`: pages of lists, the study's own page, and what watching it asks for each
  time, by the API.
- `ask_ratio_vs_rdb`: one ask and one report by Optuna's RDBStorage on the same PostgreSQL with as many running trials,
  in units of ours (`benchmarks.storage` measures both).

Run `python -m benchmarks.dispatch --running 1000 --trials 10000`; the last line is one JSON object.
`--strategy freeze_thaw --running 64 --trials 500` does the same with the service's own model.
"""

import argparse
import json
import resource
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from benchmarks.dispatch_lists import page_figures
from benchmarks.dispatch_side import TimedExecutor
from benchmarks.storage import SPACE, compare, database
from hpo_service.dispatcher.loop import Dispatcher
from hpo_service.dispatcher.state.live_studies import load_studies
from hpo_service.spec import ResolvedStudy, parse_spec, resolve
from hpo_service.storage.database import make_engine, session_factory
from hpo_service.storage.tables import DEFAULT_PROJECT_ID, Intent, Study

NAME = "scale"
RUNGS = 10
EXAMPLES_A_RUNG = 100
RESULTS_PER_SECOND = 100.0
_LONGEST_SECONDS = 1800.0


@dataclass(kw_only=True)
class Measured:
    """What the run showed. `turnarounds_seconds` after the first fill."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    results: int = 0
    asks: int = 0
    turnarounds_seconds: list[float] = field(default_factory=list)
    turns_seconds: list[float] = field(default_factory=list)


def study_spec(strategy: str, sampler: str, trials: int, running: int) -> tuple[dict[str, Any], ResolvedStudy]:
    """Ten rungs, whatever the strategy would choose."""
    document: dict[str, Any] = {
        "metadata": {"name": NAME},
        "model": {"path": "model"},
        "data": {"train": "train.jsonl", "eval": "eval.jsonl"},
        "space": SPACE,
        "search": {"strategy": strategy, "sampler": sampler, "warm_start": "off", "reduction_factor": 2},
        "budget": {"max_trials": trials, "max_parallel": running},
        "data_checks": {"enabled": False},
    }
    rows = RUNGS * EXAMPLES_A_RUNG
    resolved = resolve(parse_spec(document), model_path="m", train="t", eval="e", train_rows=rows, eval_rows=100)
    ladder = tuple(EXAMPLES_A_RUNG * (index + 1) for index in range(RUNGS))
    return document, resolved.model_copy(update={"ladder": ladder})


def post(sessions: sessionmaker[Session], document: dict[str, Any], resolved: ResolvedStudy) -> int:
    """As the API does."""
    with sessions.begin() as session:
        study = Study(
            project_id=DEFAULT_PROJECT_ID,
            name=NAME,
            spec=document,
            resolved=resolved.model_dump(mode="json"),
            state="queued",
        )
        session.add(study)
        session.flush()
        session.add(Intent(project_id=DEFAULT_PROJECT_ID, study_id=study.id, kind="create"))
        return study.id


def drive(sessions: sessionmaker[Session], running: int, trials: int, rate: float, folder: Path) -> Measured:
    """Turn the loop until all trials have begun. Measured once as many slices run as may."""
    executor = TimedExecutor(running, running / rate, RUNGS * EXAMPLES_A_RUNG)
    dispatcher = Dispatcher(sessions, executor, snapshots=folder)
    measured, begun, counted_from = Measured(), time.monotonic(), 0
    measuring_since, used_before = None, 0.0
    said = begun
    while time.monotonic() < begun + _LONGEST_SECONDS:
        turned = time.monotonic()
        dispatcher.turn()
        now = time.monotonic()
        (study,) = (dispatcher.context.studies or {}).values() or (None,)
        known = 0 if study is None else len(study.trials())
        if measuring_since is None:
            if executor.running() >= 0.98 * running:
                executor.forget_turnarounds()
                measuring_since, counted_from, used_before = now, known, time.process_time()
        else:
            measured.turns_seconds.append(now - turned)
            if known >= trials:
                break
        if now > said + 10:
            said = now
            _say(f"{now - begun:.0f} s: {known} trials, {executor.running()} running, {_figures(executor, measured)}")
    assert measuring_since is not None, "the slots were never full"
    measured.seconds = time.monotonic() - measuring_since
    measured.cpu_seconds = time.process_time() - used_before
    measured.results, measured.asks = executor.ended, known - counted_from
    measured.turnarounds_seconds = executor.turnarounds_seconds
    dispatcher.context.proposals.close()
    dispatcher.context.leadership.release()
    return measured


def _figures(executor: TimedExecutor, measured: Measured) -> str:
    late = executor.turnarounds_seconds[-1000:]
    turns = measured.turns_seconds[-200:]
    late_ms, turns_ms = 1000 * p95(late), 1000 * p95(turns)
    return f"p95 of the last {len(late)} turnarounds {late_ms:.0f} ms, of turns {turns_ms:.0f} ms; {rss_mb():.0f} MB"


def p95(values: list[float]) -> float:
    """The value that 95 % do not exceed; 0 of nothing."""
    return sorted(values)[int(0.95 * (len(values) - 1))] if values else 0.0


def rss_mb() -> float:
    """The largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def open_seconds(sessions: sessionmaker[Session]) -> float:
    """What a dispatcher that takes over reads before its first decision."""
    begun = time.monotonic()
    with sessions.begin() as session:
        studies = load_studies(session, None)
    for study in studies.values():
        study.view()
    return time.monotonic() - begun


def measure(engine: Engine, url: str, arguments: argparse.Namespace) -> dict[str, float]:
    """All figures, in the order in which they are cheapest to get."""
    sessions = session_factory(engine)
    document, resolved = study_spec(arguments.strategy, arguments.sampler, arguments.trials, arguments.running)
    post(sessions, document, resolved)
    with TemporaryDirectory(prefix="hpo-bench-") as folder:
        measured = drive(sessions, arguments.running, arguments.trials, arguments.rate, Path(folder))
    found = {
        "turnaround_p95_ms": 1000 * p95(measured.turnarounds_seconds),
        "results_per_s": measured.results / measured.seconds,
        "asks_per_s": measured.asks / measured.seconds,
        "cpu_ms_per_result": 1000 * measured.cpu_seconds / max(1, measured.results),
        "rss_mb": rss_mb(),
        "open_s": open_seconds(sessions),
        **page_figures(engine, NAME),
    }
    _say(f"{found}")
    if not arguments.no_rdb:
        latencies = compare(engine, url, arguments.running)
        theirs = latencies["rdb_ask_ms"] + latencies["rdb_report_ms"]
        found["ask_ratio_vs_rdb"] = theirs / (latencies["ask_ms"] + latencies["report_ms"])
        _say(f"{latencies}")
    return {name: round(value, 2) for name, value in found.items()}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--running", type=int, default=1000, help="slices that run at the same time")
    parser.add_argument("--trials", type=int, default=10_000, help="trials of the study")
    parser.add_argument("--rate", type=float, default=RESULTS_PER_SECOND, help="slices that end in a second")
    parser.add_argument("--sampler", default="tpe", choices=("tpe", "random"))
    parser.add_argument("--strategy", default="asha", choices=("asha", "none", "freeze_thaw"))
    parser.add_argument("--no-rdb", action="store_true", help="leave out Optuna's RDBStorage, which takes a minute")
    arguments = parser.parse_args()
    with database() as url:
        engine = make_engine(url, application_name="benchmark")
        try:
            found = measure(engine, url, arguments)
        finally:
            engine.dispose()
    print(
        json.dumps({"running": arguments.running, "trials": arguments.trials, "strategy": arguments.strategy} | found)
    )


if __name__ == "__main__":
    main()
