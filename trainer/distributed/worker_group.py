"""A worker group on this machine: rank 0 starts the other ranks, and they live and die together."""

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence

from trainer.spec import Outcome, SliceResult

#: exit status of a rank that failed where the others wait for it, and of one whose memory ran out there
RANK_LOST = 71
OUT_OF_MEMORY = 72
#: how long rank 0 has to notice by itself that another rank is gone
_GRACE_SECONDS = 10.0
#: what a rank is started with; its arguments are those of rank 0
COMMAND: tuple[str, ...] = (sys.executable, "-m", "trainer.worker")
_POLL_SECONDS = 0.2

Abandoned = Callable[[Outcome, str], Sequence[SliceResult]]

_log = logging.getLogger("trainer.worker")


def rank_environment(rank: int, size: int, port: int) -> dict[str, str]:
    """Environment in which rank `rank` of `size` on this machine finds the others; nothing leaves the machine."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": "lo",
        "NCCL_SOCKET_IFNAME": "lo",
    }


def joined_environment(rank: int, size: int, leader: str) -> dict[str, str]:
    """Environment of rank `rank` of `size`, each with a device of its own, anywhere; rank 0 waits at `leader`.

    `leader` is HOST:PORT. Which network interface leads there is for the machine's GLOO_/NCCL_SOCKET_IFNAME to say.
    """
    host, _, port = leader.rpartition(":")
    environment = rank_environment(rank, size, int(port)) | {
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": host,
    }
    if not host.startswith("127."):
        del environment["GLOO_SOCKET_IFNAME"], environment["NCCL_SOCKET_IFNAME"]
    return environment


class WorkerGroup:
    """Ranks 1 and up, children of this process, which is rank 0. They end with it: their stdin is a pipe from here."""

    def __init__(self, size: int, arguments: Sequence[str]) -> None:
        """Start them with the worker's own `arguments`, and make this process rank 0."""
        #: the socket at which rank 0 will wait for the others
        self.listener = socket.create_server(("127.0.0.1", 0))
        port = self.listener.getsockname()[1]
        os.environ.update(rank_environment(0, size, port))
        self._ranks = {
            rank: subprocess.Popen(
                [*COMMAND, *arguments],
                stdin=subprocess.PIPE,
                stdout=sys.stderr,
                env={**os.environ, **rank_environment(rank, size, port)},
            )
            for rank in range(1, size)
        }
        #: what becomes of the slices of this process when it ends; none have started yet
        self.abandoned: Abandoned = lambda _outcome, _message: ()

    @property
    def pids(self) -> list[int]:
        """Process ids of ranks 1 and up."""
        return [process.pid for process in self._ranks.values()]

    def watch(self, send: Callable[[SliceResult], None]) -> None:
        """From now on end this process once another rank has ended, with `send` for the slices that it abandons."""
        threading.Thread(target=self._watch, args=(send,), name="ranks", daemon=True).start()

    def kill(self) -> None:
        """End the other ranks, even those that do nothing any more and would not notice that this one is gone."""
        for process in self._ranks.values():
            process.kill()

    def verdict(self, outcome: Outcome, message: str) -> tuple[Outcome, str]:
        """Why the group ends, which rank 0 sees as `outcome`, unless another rank ended first and says it better."""
        deadline = time.monotonic() + _GRACE_SECONDS
        while time.monotonic() < deadline:
            dead = self._dead()
            if dead is not None:
                return Outcome.OOM if dead[1] == OUT_OF_MEMORY else outcome, _sentence(*dead)
            time.sleep(_POLL_SECONDS)
        return outcome, message

    def _watch(self, send: Callable[[SliceResult], None]) -> None:
        while (dead := self._dead()) is None:
            time.sleep(_POLL_SECONDS)
        _log.error("%s; the worker ends", _sentence(*dead))
        time.sleep(_GRACE_SECONDS)
        # Rank 0 is stuck in a collective and will never say it.
        outcome = Outcome.OOM if dead[1] == OUT_OF_MEMORY else Outcome.INFRA_ERROR
        for result in self.abandoned(outcome, _sentence(*dead)):
            send(result)
        self.kill()
        os._exit(RANK_LOST)

    def _dead(self) -> tuple[int, int] | None:
        """(rank, exit status) of a rank that has ended, one whose memory ran out before all others."""
        ended = [(rank, status) for rank, process in self._ranks.items() if (status := process.poll()) is not None]
        return min(ended, key=lambda end: end[1] != OUT_OF_MEMORY, default=None)


def _sentence(rank: int, status: int) -> str:
    if status == OUT_OF_MEMORY:
        return f"rank {rank} of the worker group ran out of memory"
    return f"rank {rank} of the worker group ended with {f'signal {-status}' if status < 0 else f'status {status}'}"
