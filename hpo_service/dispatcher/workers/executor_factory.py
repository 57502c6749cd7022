"""Which executor a dispatcher has, and what its workers are started with."""

import os
from importlib import import_module
from threading import Event

from hpo_service.core.errors import SetupError
from hpo_service.core.settings import Settings
from hpo_service.executors.base import Executor
from hpo_service.executors.gpus import visible_gpus
from hpo_service.executors.local import LocalExecutor, LocalWorkers


def make_executor(settings: Settings, stop: Event) -> Executor:
    """The executor of these settings, connected to its cluster if it has one; `stop` ends the waiting for it."""
    return LocalExecutor(local_workers(settings)) if settings.executor == "local" else _ray_executor(settings, stop)


def local_workers(settings: Settings) -> LocalWorkers:
    """What this machine's workers are started with."""
    gpus = visible_gpus(os.environ)
    count = worker_count(settings, gpus)
    threads = settings.threads_per_worker or max(1, (os.cpu_count() or 1) // max(1, count))
    return LocalWorkers(
        snapshots=settings.snapshots_location(),
        tokens=settings.home_path() / "tokens",
        logs=settings.home_path() / "logs",
        count=count,
        threads=threads,
        slots=settings.slots_per_worker,
        rank_timeout_seconds=settings.rank_timeout_seconds,
        gpus=gpus,
    )


def worker_count(settings: Settings, gpus: tuple[str, ...] | None) -> int:
    """As many local workers as the settings say, else one a GPU, and one where there are none."""
    return (len(gpus or ()) or 1) if settings.workers is None else settings.workers


def _ray_executor(settings: Settings, stop: Event) -> Executor:
    try:
        # Imported late: the cluster's library is an extra.
        starting = import_module("hpo_service.executors.ray.start")
        config = import_module("hpo_service.executors.ray.config")
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise SetupError("HPO_EXECUTOR is ray and Ray is not installed: pip install 'hpo-service[ray]'.") from error
    workers = config.RayWorkers(
        snapshots=settings.snapshot_store().location,
        threads=settings.threads_per_worker or 1,
        slots=settings.slots_per_worker,
        resource=settings.ray_resource,
        max_devices=settings.ray_max_devices,
        idle_seconds=settings.ray_idle_seconds,
        orphan_seconds=settings.ray_orphan_seconds,
        rank_timeout_seconds=settings.rank_timeout_seconds,
    )
    executor: Executor = starting.connected_executor(settings.ray_address, workers, stop)
    return executor
