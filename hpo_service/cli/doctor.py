"""`hpo doctor`: what may keep the service from running here, each with a remedy."""

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import typer
from sqlalchemy.exc import SQLAlchemyError

from hpo_service.cli.connection import service_url
from hpo_service.cli.database_checks import check_database
from hpo_service.cli.findings import Finding, finding
from hpo_service.cli.machine_checks import check_devices, check_ray, check_shared_memory, check_sinks
from hpo_service.cli.node_checks import check_nodes
from hpo_service.cli.output import Format, OutputOption, show_json, show_table
from hpo_service.cli.services import load_settings
from hpo_service.client.http import ApiProblem, Client, ServiceUnreachable
from hpo_service.core.errors import HpoError
from hpo_service.core.settings import Settings
from hpo_service.local.home import require_free_port
from hpo_service.local.supervisor import database_url
from hpo_service.services.execution.workers import worker_counts
from hpo_service.storage.database import describe, make_engine, session_factory
from trainer.common.errors import TrainerError
from trainer.snapshots.stores.location import is_url

_LEAST_DISK_BYTES = 2 * 1024**3
_START = "Start the service: hpo up"


def doctor(output: OutputOption = Format.TABLE) -> None:
    """Check this machine and the service; exit code 1 if anything is wrong."""
    settings = load_settings()
    findings = [
        *(check(settings) for check in CHECKS),
        *check_database(settings),
        *check_devices(),
        *check_shared_memory(settings),
        *check_ray(settings),
        *check_sinks(settings),
        *_nodes(),
    ]
    if output is Format.JSON:
        show_json([asdict(found) for found in findings])
    else:
        rows = [("ok" if found.ok else "FAIL", found.check, found.detail, found.remedy) for found in findings]
        show_table(("", "check", "found", "remedy"), rows)
    if not all(found.ok for found in findings):
        raise typer.Exit(1)


def _python(_: Settings) -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    return finding("python", sys.version_info >= (3, 11), found, "Use Python 3.11 or newer.")


def _package(name: str, least: tuple[int, int]) -> Callable[[Settings], Finding]:
    wanted = ".".join(map(str, least))

    def check(_: Settings) -> Finding:
        remedy = f"Needed where workers run: pip install 'hpo-service[trainer]' ({name} {wanted} or newer)."
        try:
            found = version(name)
        except PackageNotFoundError:
            return finding(name, False, "not installed", remedy)
        numbers = tuple(int(part) for part in found.split("+")[0].split(".")[:2] if part.isdigit())
        return finding(name, numbers >= least, found, remedy)

    return check


def _home(settings: Settings) -> Finding:
    home = settings.home_path()
    there = _existing(home)
    usable = there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    detail = f"{home}{'' if there == home else ' (will be made)'}"
    return finding("home", usable, detail, f"Make {there} writable, or name another folder in HPO_HOME.")


def _disk(settings: Settings) -> Finding:
    free = shutil.disk_usage(_existing(settings.home_path())).free
    remedy = "Free some space: snapshots and the database need 2 GB or more."
    return finding("disk", free >= _LEAST_DISK_BYTES, f"{free / 1024**3:.1f} GB free", remedy)


def _roots(settings: Settings) -> Finding:
    roots = settings.allowed_roots()
    bad = [str(root) for root in roots if not root.is_dir() or not os.access(root, os.R_OK | os.X_OK)]
    detail = f"unreadable: {', '.join(bad)}" if bad else ":".join(map(str, roots))
    return finding("roots", not bad, detail, "Name folders that exist in HPO_ROOTS, separated by `:`.")


def _snapshots(settings: Settings) -> Finding:
    """An object store that answers, or a folder that can be written to."""
    try:
        store = settings.snapshot_store()
        store.snapshots_in("0")
    except (HpoError, TrainerError, OSError) as error:
        remedy = "Correct HPO_SNAPSHOTS, or the network and the credentials in the environment."
        return finding("snapshots", False, str(error), remedy)
    if is_url(store.location):
        return finding("snapshots", True, f"{store.location} answers")
    there = _existing(Path(store.location))
    usable = there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    free = shutil.disk_usage(there).free
    if usable and free < _LEAST_DISK_BYTES:
        remedy = "Free some space, or lower HPO_SNAPSHOT_KEEP_BEST or HPO_SNAPSHOT_MAX_BYTES."
        return finding("snapshots", False, f"{store.location}, {free / 1024**3:.1f} GB free", remedy)
    remedy = f"Make {there} writable, or name another folder in HPO_SNAPSHOTS."
    return finding("snapshots", usable, f"{store.location}, {free / 1024**3:.1f} GB free", remedy)


def _nodes() -> list[Finding]:
    """What every worker of a running service sees from its node."""
    return [
        finding(
            f"node {check.node}, {check.worker}",
            check.ok,
            check.detail,
            f"Mount what is missing on node {check.node} under the same path, or keep snapshots in an object store.",
        )
        for check in check_nodes()
    ]


def _port(settings: Settings) -> Finding:
    where = f"{settings.host}:{settings.port}"
    try:
        require_free_port(settings.host, settings.port)
    except HpoError:
        if _answers(service_url(settings), "/healthz"):
            return finding("port", True, f"{where} is the service's")
        return finding("port", False, f"{where} is taken", "Stop that program, or choose another port in HPO_PORT.")
    return finding("port", True, f"{where} is free")


def _database(settings: Settings) -> Finding:
    try:
        url = database_url(settings)
        _count_workers(url)
    except HpoError as error:
        return finding("database", False, error.detail, _START)
    except SQLAlchemyError as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        return finding("database", False, reason, f"{_START}, or correct HPO_DATABASE_URL and run hpo migrate")
    return finding("database", True, describe(url))


def _api(settings: Settings) -> Finding:
    url = service_url(settings)
    answers = _answers(url, "/readyz")
    return finding("api", answers, f"{url} {'answers' if answers else 'does not answer'}", f"{_START}, or set HPO_URL.")


def _worker(settings: Settings) -> Finding:
    try:
        workers = _count_workers(database_url(settings))
    except (HpoError, SQLAlchemyError):
        return finding("worker", False, "unknown, the database does not answer", _START)
    detail = ", ".join(f"{count} {state}" for state, count in workers.items()) or "none"
    remedy = f"{_START}. If it runs, look into {settings.home_path() / 'logs'}."
    return finding("worker", bool(workers.get("ready")), detail, remedy)


CHECKS: tuple[Callable[[Settings], Finding], ...] = (
    _python,
    _package("torch", (2, 10)),
    _package("transformers", (5, 24)),
    _package("peft", (0, 21)),
    _home,
    _disk,
    _roots,
    _snapshots,
    _port,
    _database,
    _api,
    _worker,
)


def _existing(folder: Path) -> Path:
    return next(parent for parent in (folder, *folder.parents) if parent.exists())


def _answers(url: str, path: str) -> bool:
    try:
        with Client(url, None, timeout_seconds=3.0, attempts=1) as client:
            client.get(path)
    except (ApiProblem, ServiceUnreachable, ValueError):
        return False
    return True


def _count_workers(url: str) -> dict[str, int]:
    engine = make_engine(url, application_name="hpo-doctor", pool_size=0)
    try:
        with session_factory(engine)() as session:
            return worker_counts(session)
    finally:
        engine.dispose()
