"""The dispatcher process."""

import logging
import os
import signal
import threading

from hpo_service.database import make_engine, session_factory
from hpo_service.dispatcher.liveness import Patience
from hpo_service.dispatcher.loop import Dispatcher
from hpo_service.dispatcher.retention import Retention
from hpo_service.executors.local import LocalExecutor, LocalWorkers
from hpo_service.prices import load_prices
from hpo_service.settings import Settings

__all__ = ["Dispatcher", "run_dispatcher"]

log = logging.getLogger(__name__)


def run_dispatcher(settings: Settings) -> None:
    """Lead and dispatch to local workers until SIGTERM or SIGINT. The database must be prepared."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    stop = threading.Event()
    executor = LocalExecutor(local_workers(settings))

    def ask_to_stop(number: int, _: object) -> None:
        log.info("%s: stopping", signal.Signals(number).name)
        stop.set()
        executor.wake()

    signal.signal(signal.SIGTERM, ask_to_stop)
    signal.signal(signal.SIGINT, ask_to_stop)
    engine = make_engine(settings.require_database_url(), application_name="hpo-dispatcher")
    try:
        Dispatcher(
            session_factory(engine),
            executor,
            snapshots=settings.snapshot_store().location,
            must_see_store=True,
            patience=patience(settings),
            prices=load_prices(settings),
            retention=Retention(keep_best=settings.snapshot_keep_best, max_bytes=settings.snapshot_max_bytes),
        ).run(stop)
    finally:
        engine.dispose()


def patience(settings: Settings) -> Patience:
    """How long workers may be silent."""
    return Patience(
        floor_seconds=settings.silence_floor_seconds,
        step_multiple=settings.silence_step_multiple,
        start_seconds=settings.silence_start_seconds,
        evaluation_seconds=settings.silence_evaluation_seconds,
        job_seconds=settings.silence_job_seconds,
    )


def local_workers(settings: Settings) -> LocalWorkers:
    """What this machine's workers are started with."""
    threads = settings.threads_per_worker or max(1, (os.cpu_count() or 1) // max(1, settings.workers))
    return LocalWorkers(
        snapshots=settings.snapshots_location(),
        tokens=settings.home_path() / "tokens",
        logs=settings.home_path() / "logs",
        count=settings.workers,
        threads=threads,
        slots=settings.slots_per_worker,
        rank_timeout_seconds=settings.rank_timeout_seconds,
    )
