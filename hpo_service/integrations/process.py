"""`hpo outbox`: every sink that the settings name, a thread each."""

import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from sqlalchemy import Engine

from hpo_service.core.errors import SetupError
from hpo_service.core.settings import Settings
from hpo_service.integrations.base import Sink, Tracker
from hpo_service.integrations.delivery import Delivery
from hpo_service.integrations.notice_sinks import NotificationSink, slack, webhook
from hpo_service.integrations.poster import Poster
from hpo_service.integrations.switches import has_sinks, require_usable, tells_wandb
from hpo_service.integrations.tracker_sink import TrackingSink
from hpo_service.storage.database import make_engine, session_factory
from trainer.common.logs import configure_logs

log = logging.getLogger(__name__)

#: Of MLflow's client, unless the environment says otherwise. It tries once: what it tried twice might be there twice.
MLFLOW_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}
#: Of Weights & Biases' client, in the same way: it tells its makers nothing.
WANDB_ENVIRONMENT = {"WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"}
_STOP_SECONDS = 3.0
_ALIVE_EVERY_SECONDS = 1.0


def make_sinks(settings: Settings, engine: Engine) -> list[Sink]:
    """Every sink that is switched on. Raises SetupError as `require_usable`."""
    require_usable(settings)
    sessions = session_factory(engine)
    trackers: list[Sink] = [
        TrackingSink(sessions, tracker, store=settings.snapshot_store(), keep_best=settings.snapshot_keep_best)
        for tracker in _trackers(settings)
    ]
    return trackers + _notification_sinks(settings, engine)


def _trackers(settings: Settings) -> Iterator[Tracker]:
    """What is not told is not loaded."""
    uri = settings.mlflow_uri()
    if uri is not None:
        _set_defaults(MLFLOW_ENVIRONMENT)
        from hpo_service.integrations.mlflow import MlflowTracker

        yield MlflowTracker(uri, settings.mlflow_experiment)
    if tells_wandb(settings):
        folder = settings.home_path() / "wandb"
        _set_defaults({**WANDB_ENVIRONMENT, "WANDB_DATA_DIR": str(folder), "WANDB_CACHE_DIR": str(folder / "cache")})
        from hpo_service.integrations.wandb import WandbTracker

        yield WandbTracker(settings.wandb_project, folder, offline=settings.wandb_mode == "offline")


def _set_defaults(environment: Mapping[str, str]) -> None:
    for name, value in environment.items():
        os.environ.setdefault(name, value)


def _notification_sinks(settings: Settings, engine: Engine) -> list[Sink]:
    sessions, poster = session_factory(engine), Poster(allow_private=settings.notify_private)
    sinks = list[Sink]()
    if settings.webhook_url is not None and settings.webhook_secret is not None:
        url, render = settings.webhook_url.get_secret_value(), webhook(settings.webhook_secret.get_secret_value())
        sinks.append(NotificationSink("webhook", sessions, poster, url=url, render=render))
    if settings.slack_url is not None:
        url = settings.slack_url.get_secret_value()
        sinks.append(NotificationSink("slack", sessions, poster, url=url, render=slack))
    return sinks


def run_outbox(settings: Settings, stop: threading.Event) -> None:
    """Tell every sink until `stop` is set. The database must be prepared.

    Raises:
        SetupError: no sink is switched on, or one that cannot be told.
    """
    configure_logs(settings.log_format)
    if not has_sinks(settings):
        raise SetupError(
            "The outbox has nobody to tell; set MLFLOW_TRACKING_URI, WANDB_MODE, HPO_WEBHOOK_URL or HPO_SLACK_URL."
        )
    engine = make_engine(settings.require_database_url(), application_name="hpo-outbox")
    try:
        _tell(make_sinks(settings, engine), engine, stop, settings.alive_file)
    finally:
        engine.dispose()


def _tell(sinks: Sequence[Sink], engine: Engine, stop: threading.Event, alive_file: Path | None) -> None:
    """Until `stop`; a sink that breaks ends the others, and its error is the process's."""
    errors = list[BaseException]()

    def deliver(sink: Sink) -> None:
        try:
            Delivery(engine, sink).run(stop)
        except BaseException as error:
            errors.append(error)
            stop.set()
            raise

    # Daemons: a call that is under way when the process is to stop is told again by the next one.
    threads = [threading.Thread(target=deliver, args=(sink,), name=sink.name, daemon=True) for sink in sinks]
    for thread in threads:
        thread.start()
    log.info("telling %s", ", ".join(sink.name for sink in sinks))
    while not stop.wait(_ALIVE_EVERY_SECONDS):
        if alive_file is not None:
            alive_file.touch()
    for thread in threads:
        thread.join(_STOP_SECONDS)
    if errors:
        raise errors[0]
