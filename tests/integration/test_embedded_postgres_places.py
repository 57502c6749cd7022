"""Where a cluster lives: as root with folders that the server's user cannot reach, and as an ordinary user."""

import json
import os
import pwd
import shutil
import stat
import tempfile
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from hpo_service.core.errors import SetupError
from hpo_service.local.postgres import EmbeddedPostgres, binaries
from hpo_service.local.postgres.account import server_account
from hpo_service.local.postgres.place import SOCKET_PATH_BYTES, Place, find_place

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def _start(folder: Path, home: Path) -> tuple[EmbeddedPostgres, Place]:
    server = EmbeddedPostgres(home, fsync=False, fallback=folder / "fallback")
    server.start()
    place = find_place(home)
    assert place is not None
    return server, place


def _select_one(server: EmbeddedPostgres) -> object:
    with create_engine(server.url(), poolclass=NullPool).connect() as connection:
        return connection.execute(text("SELECT 1")).scalar()


@pytest.fixture
def locked(postgres_folder: Path) -> Path:
    """A folder that only its owner can enter."""
    folder = postgres_folder / "locked"
    folder.mkdir(mode=0o700)
    return folder


@as_root
def test_unreachable_home(postgres_folder: Path, locked: Path) -> None:
    """The cluster goes to the fallback folder, is found again, and no right of the user's folder changes."""
    server, place = _start(postgres_folder, locked / "home")
    try:
        assert place.folder.parent == postgres_folder / "fallback"
        assert place.data.stat().st_uid == place.account.uid != 0
        assert stat.S_IMODE(locked.stat().st_mode) == 0o700
        assert _select_one(EmbeddedPostgres(locked / "home")) == 1
    finally:
        server.stop()


@as_root
def test_fallback_of_a_deleted_home(postgres_folder: Path, locked: Path) -> None:
    """A home that was deleted and made anew starts empty; the earlier cluster is neither shown nor destroyed."""
    home = locked / "home"
    server, earlier = _start(postgres_folder, home)
    server.stop()
    shutil.rmtree(home)
    server, later = _start(postgres_folder, home)
    server.stop()
    assert later.folder != earlier.folder
    assert (earlier.data / "PG_VERSION").exists()
    shutil.rmtree(later.folder)
    with pytest.raises(SetupError, match="which is gone"):
        server.start()


@as_root
def test_fallback_open_to_others(postgres_folder: Path, locked: Path) -> None:
    """Root does not put a cluster where others could change it."""
    (postgres_folder / "fallback").mkdir()
    (postgres_folder / "fallback").chmod(0o777)
    with pytest.raises(SetupError, match="can be changed by others"):
        _start(postgres_folder, locked / "home")


@as_root
def test_home_closed_later(postgres_folder: Path) -> None:
    """A cluster inside a home that became unreachable is refused with the remedy, not replaced by an empty one."""
    parent = postgres_folder / "parent"
    server, _ = _start(postgres_folder, parent / "home")
    server.stop()
    parent.chmod(0o700)
    with pytest.raises(SetupError, match="cannot traverse any more"):
        server.start()
    assert not (postgres_folder / "fallback").exists()


@as_root
def test_long_path_as_root(postgres_folder: Path) -> None:
    """Where the socket's path would be too long, the cluster goes to the fallback folder."""
    server, place = _start(postgres_folder, postgres_folder / ("long" * 30))
    try:
        assert len(str(place.socket_folder / ".s.PGSQL.5432")) <= SOCKET_PATH_BYTES
        assert _select_one(server) == 1
    finally:
        server.stop()


@pytest.fixture
def unreachable_programs(tmp_path: Path) -> Path:
    """The programs under a path that only root can traverse."""
    assert stat.S_IMODE(tmp_path.parent.stat().st_mode) == 0o700
    folder = binaries.locate(server_account()).folder
    package = folder.parents[1]
    for source in (package, package.with_name(f"{package.name}.libs")):
        (tmp_path / source.name).symlink_to(source)
    return tmp_path / folder.relative_to(package.parent)


@as_root
def test_unreachable_programs(
    postgres_folder: Path, unreachable_programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server then runs from a copy beside its cluster, which is made once."""
    monkeypatch.setattr(binaries, "_of_wheel", lambda: [unreachable_programs])
    server, place = _start(postgres_folder, postgres_folder / "home")
    server.stop()
    copies = list(place.folder.glob("programs-*"))
    made = copies[0].stat().st_mtime_ns
    assert place.folder.parent == postgres_folder / "fallback"
    server.start()
    assert _select_one(server) == 1
    server.stop()
    assert [copy.stat().st_mtime_ns for copy in place.folder.glob("programs-*")] == [made]


@as_root
def test_named_programs_unreachable(
    postgres_folder: Path, unreachable_programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that the user named and that cannot work is refused."""
    monkeypatch.setenv("HPO_PG_BIN", str(unreachable_programs))
    with pytest.raises(SetupError, match="does not run as root"):
        _start(postgres_folder, postgres_folder / "home")


def test_named_programs_missing(postgres_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A named folder without the programs is refused."""
    monkeypatch.setenv("HPO_PG_BIN", str(postgres_folder))
    with pytest.raises(SetupError, match="cannot be run there"):
        _start(postgres_folder, postgres_folder / "home")


def _use(home: Path, folder: Path) -> list[str]:
    """Start a server, ask it who we are, stop it; returns what there is to say."""
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    os.environ.pop("XDG_RUNTIME_DIR", None)
    server = EmbeddedPostgres(home, fsync=False, fallback=Path("/nonexistent"))
    try:
        server.start()
        with create_engine(server.url(), poolclass=NullPool).connect() as connection:
            user = connection.execute(text("SELECT current_user")).scalar_one()
        server.stop()
        return [str(user), str(server.running())]
    except SetupError as error:
        return ["SetupError", str(error)]


def _use_as_user(home: Path, folder: Path) -> list[str]:
    """`_use` in a child that has become the user nobody. A fork, since that user may not reach this Python itself."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                user = pwd.getpwnam("nobody")
                os.setgroups([])
                os.setgid(user.pw_gid)
                os.setuid(user.pw_uid)
            os.write(writer, json.dumps(_use(home, folder)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as stream:
        said = stream.read()
    os.waitpid(child, 0)
    return [str(line) for line in json.loads(said)]


@pytest.mark.parametrize("name", ["short", "long" * 30, "with, comma and 'quotes'"])
def test_ordinary_user(postgres_folder: Path, name: str) -> None:
    """An ordinary user's server lives in the home; a socket path that is too long or odd goes to a private folder."""
    home = postgres_folder / name
    home.mkdir()
    if os.geteuid() == 0:
        shutil.chown(home, "nobody")
        postgres_folder.chmod(0o777)
    assert _use_as_user(home, postgres_folder) == ["hpo", "False"]
    private = [entry for entry in postgres_folder.iterdir() if entry.name.startswith("hpo-")]
    assert [stat.S_IMODE(entry.stat().st_mode) for entry in private] == [0o700] * (name != "short")
    assert (home / "postgres" / "data" / "PG_VERSION").exists()


@as_root
def test_home_not_writable(postgres_folder: Path) -> None:
    """A home that the caller cannot write to is refused with the remedy."""
    kind, sentence = _use_as_user(postgres_folder / "home", postgres_folder)
    assert kind == "SetupError"
    assert "Permission denied" in sentence
    assert "HPO_HOME" in sentence


@as_root
def test_home_of_another_user(postgres_folder: Path) -> None:
    """An ordinary user's cluster is refused to root, whose files would then be in a folder of that user's."""
    home = postgres_folder / "theirs"
    home.mkdir()
    shutil.chown(home, "nobody")
    assert _use_as_user(home, postgres_folder) == ["hpo", "False"]
    with pytest.raises(SetupError, match="belongs to uid"):
        _start(postgres_folder, home)
