"""The parts of a service in tests of faults: the real dispatcher, with real local workers that have no model; the API.

`python -m tests.chaos.parts` is the dispatcher that the environment variable `CHAOS_DISPATCHER` describes, in a process
that begins anew.
"""

import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event
from typing import Any

import uvicorn

from hpo_service.api.app import create_app
from hpo_service.core.settings import Settings
from hpo_service.dispatcher.loop import Dispatcher
from hpo_service.executors.local import LocalExecutor, LocalWorkers
from hpo_service.spec import ResolvedStudy, parse_spec, resolve
from hpo_service.storage.database import make_engine, session_factory
from tests.chaos.losses import expected_loss, reached
from trainer.common.failpoints import VARIABLE
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
#: the library that gives a process another clock; None where it is not installed
FAKETIME = next((str(path) for path in Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)
_DESCRIBED = "CHAOS_DISPATCHER"


def resolved(spec: dict[str, Any]) -> ResolvedStudy:
    """`spec` on data that nobody looks at."""
    return resolve(parse_spec(spec), model_path="/m", train="/d/train.jsonl", eval=None, train_rows=ROWS, eval_rows=8)


class FirstWorkersFail(LocalExecutor):
    """Workers that replace others meet no failpoint, else a slice would find one at every attempt."""

    def start(self) -> None:
        """Start the workers that do."""
        super().start()
        os.environ.pop(VARIABLE, None)


@dataclass(frozen=True, kw_only=True)
class ChaosDispatcher:
    """A dispatcher that leads until SIGTERM, as `hpo dispatch` does. Only its first workers meet failpoints.

    Workers take `step_seconds` a step, and say some things twice or late if `repeats` is not 0; without `step_seconds`
    they are the real ones. `skew_seconds` sets their clocks.
    """

    url: str
    folder: str
    workers: int = 1
    step_seconds: float | None = 0.002
    repeats: int = 0
    skew_seconds: int = 0

    def __call__(self) -> None:
        """Run it."""
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        folder, stop = Path(self.folder), Event()
        executor = FirstWorkersFail(
            LocalWorkers(
                snapshots=folder / "snapshots",
                tokens=folder / "tokens",
                logs=folder / "logs",
                count=self.workers,
                threads=1,
                command=self._command(),
            )
        )

        def ask_to_stop(*_: object) -> None:
            stop.set()
            executor.wake()

        signal.signal(signal.SIGTERM, ask_to_stop)
        engine = make_engine(self.url, application_name="hpo-dispatcher")
        sessions = session_factory(engine)
        Dispatcher(sessions, executor, snapshots=folder / "snapshots", must_see_store=True).run(stop)

    def skewed(self) -> None:
        """Run it in a process that loads the library of another clock; which one is for FAKETIME to say."""
        described = {_DESCRIBED: json.dumps(asdict(self)), **_skew()}
        os.execve(sys.executable, [sys.executable, "-m", "tests.chaos.parts"], {**os.environ, **described})

    def _command(self) -> tuple[str, ...]:
        skew = ("env", *(f"{name}={value}" for name, value in _skew(self.skew_seconds).items()))
        program = ("-m", "trainer.worker")
        if self.step_seconds is not None:
            program = ("-m", "tests.chaos.worker", str(self.step_seconds), str(self.repeats))  # type: ignore[assignment]
        return (*(skew if self.skew_seconds else ()), sys.executable, *program)


def serve(settings: Settings) -> Callable[[], None]:
    """An API that serves until SIGTERM, as `hpo serve` does, without the dashboard."""

    def run() -> None:
        engine = make_engine(settings.require_database_url(), application_name="hpo-api")
        app = create_app(settings, engine, with_dashboard=False)
        uvicorn.run(app, host=settings.host, port=settings.port, access_log=False, timeout_graceful_shutdown=3)

    return run


def rung_loss(parameters: Parameters, seed: int, until_examples: int, total_examples: int) -> float:
    """The loss that a trial on the engine without a model must have at a rung."""
    examples = reached(until_examples, parameters.effective_batch, total_examples)
    return expected_loss(parameters, seed, examples)


def _skew(seconds: int | None = None) -> dict[str, str]:
    """Environment of a process whose clock is wrong; clocks that only go forward are not touched."""
    when = {} if seconds is None else {"FAKETIME": f"{seconds:+d}s"}
    return {"LD_PRELOAD": FAKETIME or "", "FAKETIME_DONT_FAKE_MONOTONIC": "1", **when}


if __name__ == "__main__":
    ChaosDispatcher(**json.loads(os.environ.pop(_DESCRIBED)))()
