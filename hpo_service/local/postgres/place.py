"""Which folder holds the cluster of an HPO_HOME, and which one its socket.

An ordinary user's cluster lives in `<home>/postgres`. Under root the server runs as an unprivileged user; where that
user cannot reach the home, the cluster lives in `<fallback>/<digest of the home>` and the home's file
`postgres/location` says so. No right of a folder that we did not make is ever changed.
"""

import hashlib
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hpo_service.core.errors import SetupError
from hpo_service.local.postgres.account import Account, server_account
from hpo_service.local.postgres.binaries import Binaries

SOCKET_PATH_BYTES = 100
_SOCKET_NAME = ".s.PGSQL.5432"


@dataclass(frozen=True)
class Place:
    """The files of one cluster. `folder` belongs to the caller; `data` and the socket folder to the server's user."""

    folder: Path
    account: Account

    @property
    def data(self) -> Path:
        """PostgreSQL's own data folder."""
        return self.folder / "data"

    @property
    def passwords(self) -> Path:
        """The roles' passwords, mode 0600."""
        return self.folder / "passwords.json"

    @property
    def log(self) -> Path:
        """What the server says."""
        return self.folder / "postgres.log"

    @property
    def config(self) -> Path:
        """The server's configuration, written anew at each start."""
        return self.folder / "postgresql.conf"

    @property
    def server_lock(self) -> Path:
        """Held by the server and its children as long as one of them lives."""
        return self.folder / "server.lock"

    @property
    def socket_folder(self) -> Path:
        """Where the server listens: `<folder>/run`, or what the file `socket` names where that path is too long."""
        recorded = self.folder / "socket"
        return Path(recorded.read_text()) if recorded.exists() else self.folder / "run"

    def make_socket_folder(self) -> None:
        """Make the socket folder, closed to everybody but the server's user."""
        if self.account.switch or fits_socket(self.folder / "run"):
            self.make_owned(self.folder / "run")
        elif not _is_private(self.socket_folder) or not fits_socket(self.socket_folder):
            part = self.folder / "socket.part"
            part.write_text(str(_make_short_folder(self.folder)))
            part.replace(self.folder / "socket")

    def make_owned(self, folder: Path) -> None:
        """Make `folder`, directly in ours, as the server user's private one."""
        folder.mkdir(mode=0o700, exist_ok=True)
        if self.account.switch and folder.lstat().st_uid != self.account.uid:
            os.chown(folder, self.account.uid, self.account.gid, follow_symlinks=False)


def control_folder(home: Path) -> Path:
    """Where a home keeps its cluster, or the note where that is."""
    return home / "postgres"


def find_place(home: Path) -> Place | None:
    """The place of the home's cluster; None where it has none yet."""
    control = control_folder(home)
    location = control / "location"
    folder = Path(location.read_text()) if location.exists() else control
    data = folder / "data"
    if not (data / "PG_VERSION").exists():
        return None
    _require_ours(folder)
    owner = data.stat().st_uid
    account = server_account(owner)
    if account.uid != owner:
        raise SetupError(
            f"The database in {data} belongs to uid {owner}, but PostgreSQL would run as {account.name!r} (uid "
            f"{account.uid}). Run the service as the user who made it, or choose another HPO_HOME."
        )
    return Place(folder, account)


def settle(home: Path, fallback: Path, binaries: Binaries, account: Account) -> Place:
    """Choose and make the folder for a home without a cluster."""
    control = control_folder(home)
    location = control / "location"
    _require_ours(control)
    if location.exists():
        return Place(_located(location), account)
    if account.switch:
        control.chmod(0o755)
    reachable = account.can_enter(control) and (not account.switch or fits_socket(control / "run"))
    if reachable and binaries.reachable_by(account):
        return Place(control, account)
    folder = _fallback_folder(home, fallback, account)
    part = location.with_suffix(".part")
    part.write_text(str(folder))
    part.replace(location)
    return Place(folder, account)


def fits_socket(folder: Path) -> bool:
    """Whether a socket in `folder` has a path that every system accepts, and that libpq does not read as a list."""
    return len(os.fsencode(folder / _SOCKET_NAME)) <= SOCKET_PATH_BYTES and "," not in str(folder)


def _fallback_folder(home: Path, fallback: Path, account: Account) -> Path:
    fallback.mkdir(parents=True, exist_ok=True)
    digest = _digest(home)
    names = [digest, *(f"{digest}-{number}" for number in range(2, 1000))]
    folder = next(fallback / name for name in names if not (fallback / name / "data").exists())
    folder.mkdir(exist_ok=True)
    for made in (fallback, folder):
        found = made.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise SetupError(
                f"The user {account.name!r}, who runs PostgreSQL for root, cannot use {home}, and {made}, where the "
                "database would live instead, can be changed by others. Give it to root with mode 0755 (chown root, "
                "chmod 755), or choose an HPO_HOME that everybody can traverse."
            )
    folder.chmod(0o755)
    if not account.can_enter(folder) or not fits_socket(folder / "run"):
        raise SetupError(
            f"The user {account.name!r}, who runs PostgreSQL for root, can use neither {home} nor {folder} (both need "
            f"rights to traverse, and a socket path of at most {SOCKET_PATH_BYTES} bytes). Choose an HPO_HOME with a "
            "short path that everybody can traverse."
        )
    return folder


def _located(location: Path) -> Path:
    folder = Path(location.read_text())
    if not folder.is_dir():
        raise SetupError(
            f"The database of this HPO_HOME should be in {folder} (says {location}), which is gone. Bring it back; or, "
            f"to start with an empty database, remove {location}."
        )
    return folder


def _require_ours(folder: Path) -> None:
    owner = folder.stat().st_uid
    if owner != os.geteuid():
        raise SetupError(
            f"{folder} belongs to uid {owner}, but this process runs as uid {os.geteuid()}. Run the service as that "
            "user, or choose another HPO_HOME."
        )


def _digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:16]


def _make_short_folder(folder: Path) -> Path:
    """A new private folder with a random name, so that nobody can have made it before."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    for parent in [*([Path(runtime)] if runtime else []), Path(tempfile.gettempdir()), Path("/tmp")]:  # noqa: S108
        if parent.is_dir() and os.access(parent, os.W_OK) and fits_socket(parent / "hpo-12345678"):
            return Path(tempfile.mkdtemp(prefix="hpo-", dir=parent))
    raise SetupError(
        f"The path of the database's socket in {folder} is longer than {SOCKET_PATH_BYTES} bytes, and there is no "
        "shorter private folder in XDG_RUNTIME_DIR or TMPDIR. Choose an HPO_HOME with a shorter path."
    )


def _is_private(folder: Path) -> bool:
    if not folder.exists():
        return False
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
