"""A cluster's files: made once, checked and configured at each start."""

import os
import shutil
from pathlib import Path

from hpo_service.core.errors import SetupError
from hpo_service.local.postgres.binaries import VARIABLE, Binaries
from hpo_service.local.postgres.place import Place
from hpo_service.local.postgres.roles import SUPERUSER, make_passwords, read_passwords

MAX_CONNECTIONS = 200
_LOG_LIMIT_BYTES = 10_000_000
_INITDB_SECONDS = 300.0


def create(place: Place, binaries: Binaries, *, fsync: bool, lock: int) -> None:
    """Make the cluster beside its final name and move it there, so that a killed attempt leaves nothing to mistake.

    `lock`: the server's lock, which `initdb` holds too, should the caller be killed.
    """
    _refuse_foreign(place.data)
    part = place.folder / "data.part"
    shutil.rmtree(part, ignore_errors=True)
    make_passwords(place.passwords)
    place.make_owned(part)
    secret = place.folder / "initdb.secret"
    secret.unlink(missing_ok=True)
    try:
        _write_for(place, secret, read_passwords(place.passwords)[SUPERUSER])
        command: list[str | Path] = [binaries.initdb, "-D", part, f"--pwfile={secret}", f"--username={SUPERUSER}"]
        command += ["--encoding=UTF8", "--locale=C", "--auth=scram-sha-256", *([] if fsync else ["--no-sync"])]
        made = place.account.run(command, timeout=_INITDB_SECONDS, keep=(lock,))
    finally:
        secret.unlink(missing_ok=True)
    if made.returncode != 0:
        shutil.rmtree(part, ignore_errors=True)
        raise SetupError(
            f"PostgreSQL could not make its files in {place.folder}: {_last_words(made.stdout)}. Free space and rights "
            "there are the usual reasons; correct them and start again."
        )
    if place.data.exists():
        place.data.rmdir()
    part.rename(place.data)
    _sync_folder(place.folder)


def check_version(place: Place, binaries: Binaries) -> None:
    """Refuse binaries of another major version than the cluster's."""
    found = (place.data / "PG_VERSION").read_text().strip()
    if found != binaries.major:
        raise SetupError(
            f"The database in {place.data} was made by PostgreSQL {found}, but the programs in {binaries.folder} are "
            f"version {binaries.version}. Name the programs of version {found} in {VARIABLE}; to move on, dump it with "
            f"them (pg_dump), move {place.data} away, start again and restore."
        )


def configure(place: Place, *, fsync: bool) -> None:
    """Write the configuration; outside the data folder, so that the caller writes in folders of its own only."""
    access = place.folder / "pg_hba.conf"
    _replace(access, "local all all scram-sha-256\n")
    values = {
        "listen_addresses": "",
        "unix_socket_directories": '"' + str(place.socket_folder).replace('"', '""') + '"',
        "unix_socket_permissions": "0700",
        "hba_file": str(access),
        "max_connections": str(MAX_CONNECTIONS),
        "password_encryption": "scram-sha-256",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_line_prefix": "%m [%p] ",
        "logging_collector": "off",
    }
    if not fsync:
        values |= {"fsync": "off", "full_page_writes": "off"}
    _replace(place.config, "".join(f"{name} = {_quoted(value)}\n" for name, value in values.items()))


def remove_stale_files(place: Place) -> None:
    """Remove what a killed server left. The caller holds the server's lock: no process of it lives."""
    (place.data / "postmaster.pid").unlink(missing_ok=True)
    for name in (".s.PGSQL.5432", ".s.PGSQL.5432.lock"):
        (place.socket_folder / name).unlink(missing_ok=True)


def open_log(place: Place) -> int:
    """Open the log for appending; a long one is set aside first."""
    if place.log.exists() and place.log.stat().st_size > _LOG_LIMIT_BYTES:
        place.log.replace(place.log.with_suffix(".log.1"))
    return os.open(place.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def log_since(place: Place, position: int) -> str:
    """The newest lines of the log after `position`, for an error message."""
    with place.log.open("rb") as stream:
        stream.seek(position)
        return _last_words(stream.read().decode(errors="replace"))


def _refuse_foreign(data: Path) -> None:
    if data.exists() and (not data.is_dir() or any(data.iterdir())):
        raise SetupError(
            f"{data} exists and is no PostgreSQL database (it has no PG_VERSION). Move it away, or choose another "
            "HPO_HOME."
        )


def _write_for(place: Place, path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        if place.account.switch:
            os.fchown(descriptor, place.account.uid, place.account.gid)
        stream.write(text)


def _replace(path: Path, text: str) -> None:
    part = path.with_suffix(".part")
    part.write_text(text)
    part.chmod(0o644)
    part.replace(path)


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def _last_words(text: str, lines: int = 4) -> str:
    return " / ".join(line.strip() for line in text.strip().splitlines()[-lines:]) or "it says nothing"


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
