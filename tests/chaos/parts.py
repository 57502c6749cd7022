"""The parts of a service in tests of faults: the real dispatcher, with real local workers that have no model."""

import faulthandler
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

from hpo_service.database import make_engine, session_factory
from hpo_service.dispatcher.loop import Dispatcher
from hpo_service.executors.local import LocalExecutor, LocalWorkers
from hpo_service.spec import ResolvedStudy, StudySpec, parse_spec, resolve
from tests.chaos.losses import expected_loss, reached
from trainer.failpoints import VARIABLE
from trainer.spec import Parameters

ROWS = 60
EFFECTIVE_BATCH = 5
SPEC: dict[str, Any] = {
    "metadata": {"name": "s"},
    "model": {"path": "model"},
    "data": {"train": "train.jsonl", "max_train_examples": ROWS},
    "space": {
        "learning_rate": {"low": 1e-5, "high": 1e-1, "log": True},
        "lora_r": {"choices": [4, 8, 16]},
        "effective_batch": EFFECTIVE_BATCH,
    },
    "baseline": {"learning_rate": 1e-4, "lora_r": 8},
    "search": {"strategy": "asha", "seed": 3, "deterministic": True, "first_rung_fraction": 0.15},
    "training": {"checkpoint_every_steps": 3},
    "budget": {"max_trials": 4},
    "data_checks": {"enabled": False},
}


class FirstWorkersFail(LocalExecutor):
    """Workers that replace others meet no failpoint, else a slice would find one at every attempt."""

    def start(self) -> None:
        """Start the workers that do."""
        super().start()
        os.environ.pop(VARIABLE, None)


def resolved(spec: dict[str, Any]) -> ResolvedStudy:
    """`spec` on data that nobody looks at."""
    parsed: StudySpec = parse_spec(spec)
    return resolve(parsed, model_path="/m", train="/d/train.jsonl", eval=None, train_rows=ROWS, eval_rows=8)


def dispatch(url: str, folder: Path, *, workers: int = 1, step_seconds: float = 0.002) -> Callable[[], None]:
    """A dispatcher that leads until SIGTERM, as `hpo dispatch` does. Only its first workers meet failpoints."""

    def run() -> None:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        faulthandler.register(signal.SIGUSR1)
        config = LocalWorkers(
            snapshots=folder / "snapshots",
            tokens=folder / "tokens",
            logs=folder / "logs",
            count=workers,
            threads=1,
            command=(sys.executable, "-m", "tests.chaos.worker", "--step-seconds", str(step_seconds)),
        )
        stop = Event()
        executor = FirstWorkersFail(config)

        def ask_to_stop(*_: object) -> None:
            stop.set()
            executor.wake()

        signal.signal(signal.SIGTERM, ask_to_stop)
        engine = make_engine(url, application_name="hpo-dispatcher")
        Dispatcher(session_factory(engine), executor, snapshots=folder / "snapshots").run(stop)

    return run


def rung_loss(parameters: Parameters, seed: int, until_examples: int, total_examples: int) -> float:
    """The loss that a trial on the engine without a model must have at a rung."""
    examples = reached(until_examples, parameters.effective_batch, total_examples)
    return expected_loss(parameters, seed, examples)
