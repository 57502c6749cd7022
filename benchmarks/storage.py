"""Ask, report and prune latency: our in-memory study against Optuna's RDBStorage, on the same PostgreSQL.

Both hold the same study: 200 finished trials and R running ones, 20 reported values each; both sample with TPE.

- ours: what the dispatcher does. *ask*: view, proposal (a fresh sampler on the view), acceptance in one transaction
  with slice, flush and commit. *report*: one value, flush, commit. *prune*: the median rule on a new view.
- Optuna's: `study.ask`, `trial.report`, `trial.should_prune` with MedianPruner, through Optuna's own cache.

`accept_ms` is the part of *ask* that the dispatcher's loop waits for; proposals are computed on a thread.

Run `python -m benchmarks.storage`; the last line is one JSON object. Milliseconds are medians.
"""

import argparse
import gc
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import optuna
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial
from sqlalchemy import Engine

from hpo_service.core.study_rules import Spent, StudyState
from hpo_service.dispatcher.scheduling.placement import accept, note_decision_number
from hpo_service.dispatcher.scheduling.propose import propose
from hpo_service.dispatcher.state.live_studies import RUNNING, LiveSlice, LiveStudy
from hpo_service.local.postgres import EmbeddedPostgres
from hpo_service.spec import ResolvedStudy, parse_spec, resolve
from hpo_service.spec.trial_parameters import fixed_attributes
from hpo_service.storage.database import make_engine, optuna_url, prepare, session_factory
from hpo_service.storage.optuna import StudyStorage
from hpo_service.storage.queries import placements
from hpo_service.storage.tables import DEFAULT_PROJECT_ID, Study

FINISHED = 200
VALUES = 20
STEP = 100
SPACE = {
    "learning_rate": {"low": 1e-6, "high": 1e-2, "log": True},
    "lora_r": {"choices": [4, 8, 16, 32, 64]},
    "lora_alpha": {"low": 8.0, "high": 128.0},
    "lora_dropout": {"low": 0.0, "high": 0.2},
    "effective_batch": {"choices": [4, 8, 16, 32]},
    "warmup_ratio": {"low": 0.0, "high": 0.2},
    "weight_decay": {"low": 0.0, "high": 0.1},
    "lr_scheduler": {"choices": ["linear", "cosine", "constant"]},
}


def resolved_study() -> ResolvedStudy:
    """Eight dimensions, pruned by the median."""
    spec = {
        "metadata": {"name": "storage"},
        "model": {"path": "model"},
        "data": {"train": "train.jsonl", "eval": "eval.jsonl"},
        "space": SPACE,
        "search": {"strategy": "median"},
        "budget": {"max_trials": 100_000},
    }
    return resolve(parse_spec(spec), model_path="model", train="t", eval="e", train_rows=4000, eval_rows=100)


def fill(engine: Engine, resolved: ResolvedStudy, name: str, running: int) -> int:
    """A study with its finished and running trials. Returns Optuna's id."""
    rng = random.Random(0)
    space = resolved.search_space()
    distributions = space.distributions()
    with engine.begin() as connection, StudyStorage.load(connection, []).changes(connection) as storage:
        study_id = storage.create_new_study([StudyDirection.MINIMIZE], name)
        for number in range(FINISHED + running):
            point = space.sample(lambda name: space.spread(name, rng.random()))
            loss, finished = rng.uniform(1, 3), number < FINISHED
            trial = create_trial(
                state=TrialState.COMPLETE if finished else TrialState.RUNNING,
                value=loss if finished else None,
                params=dict(point.sampled),
                distributions={key: distributions[key] for key in point.sampled},
                user_attrs={**fixed_attributes(point), "hpo_state": RUNNING},
                intermediate_values={STEP * (i + 1): loss + 1 / (i + 1) for i in range(VALUES)},
            )
            storage.create_new_trial(study_id, trial)
        return study_id


def milliseconds(action: Callable[[int], object], times: int) -> float:
    """The median of `times` calls after one that does not count."""
    taken = []
    for index in range(times + 1):
        start = time.perf_counter()
        action(index)
        taken.append(1000 * (time.perf_counter() - start))
    return median(taken[1:])


class Ours:
    """A live study as the dispatcher holds it."""

    def __init__(self, engine: Engine, resolved: ResolvedStudy, optuna_study_id: int) -> None:
        self.sessions = session_factory(engine)
        self.accepting: list[float] = []
        with self.sessions.begin() as session:
            document = resolved.model_dump(mode="json")
            row = Study(
                project_id=DEFAULT_PROJECT_ID,
                name=f"storage-{optuna_study_id}",
                spec={},
                resolved=document,
                state="running",
                optuna_study_id=optuna_study_id,
            )
            session.add(row)
            session.flush()
            self.live = LiveStudy(
                id=row.id,
                project_id=row.project_id,
                name=row.name,
                optuna_name=row.name,
                state=StudyState.RUNNING,
                message="",
                resolved=resolved,
                decision_number=0,
                spent=Spent(),
                storage=StudyStorage.load(session.connection(), [optuna_study_id]),
                optuna_study_id=optuna_study_id,
            )
        trials = self.live.trials()
        self.live.slices = {trial.number: _running_slice(trial.number, trial._trial_id) for trial in trials[FINISHED:]}
        self.newest = len(trials) - 1

    def ask(self, _: int) -> None:
        live = self.live
        proposal = propose(live.strategy, live.space, live.resolved, live.view())
        start = time.perf_counter()
        with self.sessions.begin() as session:
            piece, row = accept(session, live, proposal, *placements.slice_ids(session, 1))
            note_decision_number(session, live)
            placements.add(session, [row], [])
            session.flush()
            live.storage.flush(session.connection())
        self.accepting.append(1000 * (time.perf_counter() - start))
        piece.running = True
        self.newest = piece.trial_number

    def report(self, index: int) -> None:
        trial_id = self.live.trials()[self.newest]._trial_id
        with self.sessions.begin() as session:
            self.live.storage.set_trial_intermediate_value(trial_id, STEP * (index + 1), 2.0)
            self.live.storage.flush(session.connection())

    def prune(self, _: int) -> None:
        self.live.strategy.judge(self.live.view(), self.newest)


def _running_slice(number: int, trial_id: int) -> LiveSlice:
    return LiveSlice(
        id=number,
        trial_number=number,
        optuna_trial_id=trial_id,
        until_examples=STEP * (VALUES + 1),
        attempt=1,
        failures=0,
        running=True,
    )


class Optunas:
    """The same study as Optuna would run it."""

    def __init__(self, url: str, resolved: ResolvedStudy, name: str) -> None:
        sampler = optuna.samplers.TPESampler(seed=0)
        self.study = optuna.load_study(
            study_name=name, storage=optuna_url(url), sampler=sampler, pruner=optuna.pruners.MedianPruner()
        )
        self.distributions = resolved.search_space().distributions()
        self.trial: optuna.Trial

    def ask(self, _: int) -> None:
        self.trial = self.study.ask(self.distributions)

    def report(self, index: int) -> None:
        self.trial.report(2.0, STEP * (index + 1))

    def prune(self, _: int) -> None:
        self.trial.should_prune()


def compare(engine: Engine, url: str, running: int) -> dict[str, float]:
    """All latencies with `running` running trials."""
    resolved = resolved_study()
    ours = Ours(engine, resolved, fill(engine, resolved, f"ours-{running}", running))
    fill(engine, resolved, f"optunas-{running}", running)
    theirs = Optunas(url, resolved, f"optunas-{running}")
    gc.collect()
    found = {
        "ask_ms": milliseconds(ours.ask, 15),
        "report_ms": milliseconds(ours.report, 15),
        "prune_ms": milliseconds(ours.prune, 15),
        "rdb_ask_ms": milliseconds(theirs.ask, 3),
        "rdb_report_ms": milliseconds(theirs.report, 15),
        "rdb_prune_ms": milliseconds(theirs.prune, 3),
    }
    found["accept_ms"] = median(ours.accepting[1:])
    found["ask_ratio"] = found["rdb_ask_ms"] / found["ask_ms"]
    return {name: round(value, 2) for name, value in found.items()}


@contextmanager
def database() -> Iterator[str]:
    """The URL of a server of our own, with fsync as in production."""
    with tempfile.TemporaryDirectory(prefix="hpo-bench-") as folder:
        Path(folder).chmod(0o755)
        server = EmbeddedPostgres(Path(folder) / "home", fallback=Path(folder) / "fallback")
        server.start()
        try:
            url = server.url()
            prepare(url)
            yield url
        finally:
            server.stop()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--running", default="100,300,1000", help="numbers of running trials, with commas")
    counts = [int(part) for part in parser.parse_args().running.split(",")]
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    results = {}
    with database() as url:
        engine = make_engine(url, application_name="benchmark")
        for running in counts:
            results[str(running)] = compare(engine, url, running)
            print(f"{running} running: {results[str(running)]}", file=sys.stderr)
        engine.dispose()
    print(json.dumps({"running": results, "finished": FINISHED, "values": VALUES}))


if __name__ == "__main__":
    main()
