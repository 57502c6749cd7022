"""The operating-system user that runs the server: PostgreSQL refuses to run as root."""

import os
import pwd
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hpo_service.core.errors import SetupError

UNPRIVILEGED = ("postgres", "nobody")


@dataclass(frozen=True)
class Account:
    """Who runs PostgreSQL. `switch`: it is somebody else than the caller, who is root."""

    name: str
    uid: int
    gid: int
    switch: bool

    def run(
        self,
        command: Sequence[str | Path],
        *,
        timeout: float = 60.0,
        output: int | None = None,
        keep: tuple[int, ...] = (),
    ) -> subprocess.CompletedProcess[str]:
        """Run `command` as this user, away from the terminal, with a bare environment.

        Both streams go to the file descriptor `output`, or are captured together. `keep` stays open in the child.
        Raises OSError where the user cannot reach the program.
        """
        return subprocess.run(
            [str(part) for part in command],
            cwd="/",
            env=_bare_environment(),
            user=self.uid if self.switch else None,
            group=self.gid if self.switch else None,
            extra_groups=[] if self.switch else None,
            umask=0o077,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if output is None else output,
            stderr=subprocess.STDOUT,
            pass_fds=keep,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )

    def can_enter(self, folder: Path) -> bool:
        """Whether this user can traverse every folder down to and including `folder`."""
        return not self.switch or self.run(["test", "-x", folder]).returncode == 0


def server_account(uid: int | None = None) -> Account:
    """The account for the server: the caller's own; for root an unprivileged one, or `uid` where data exist already."""
    if os.geteuid() != 0:
        return Account(name=str(os.geteuid()), uid=os.geteuid(), gid=os.getegid(), switch=False)
    for entry in _candidates(uid):
        return Account(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid, switch=True)
    raise SetupError(
        "PostgreSQL cannot run as root, and this system has neither of the users "
        f"{' and '.join(UNPRIVILEGED)} to run it instead. Start the service as an ordinary user, create the user "
        "'postgres', or set HPO_DATABASE_URL."
    )


def _candidates(uid: int | None) -> Iterator[pwd.struct_passwd]:
    for name in UNPRIVILEGED:
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            if entry.pw_uid != 0 and uid in (None, entry.pw_uid):
                yield entry


def _bare_environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH") if name in os.environ}
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"} | kept
