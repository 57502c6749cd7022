"""The dispatcher process."""

import logging
import signal
import threading

from hpo_service.core.pricing import load_prices
from hpo_service.core.settings import Settings
from hpo_service.dispatcher.loop import Dispatcher
from hpo_service.dispatcher.snapshots.retention import Retention
from hpo_service.dispatcher.workers.executor_factory import local_workers, make_executor
from hpo_service.dispatcher.workers.progress_timeouts import Patience
from hpo_service.observability.tracing import start_tracing
from hpo_service.storage.database import make_engine, session_factory
from trainer.common.logs import configure_logs

__all__ = ["Dispatcher", "local_workers", "run_dispatcher"]

log = logging.getLogger(__name__)


def run_dispatcher(settings: Settings) -> None:
    """Lead and dispatch to workers until SIGTERM or SIGINT. The database must be prepared."""
    configure_logs(settings.log_format)
    start_tracing("hpo-dispatcher")
    stop = threading.Event()

    def ask_to_stop(number: int, _: object) -> None:
        log.info("%s: stopping", signal.Signals(number).name)
        stop.set()

    signal.signal(signal.SIGTERM, ask_to_stop)
    signal.signal(signal.SIGINT, ask_to_stop)
    executor = make_executor(settings, stop)
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
            alive_file=settings.alive_file,
            mlflow_url=settings.mlflow_pages(),
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
