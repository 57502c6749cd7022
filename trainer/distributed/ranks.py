"""The processes of a worker group: who is who, and how they agree.

Every method that all ranks must call together says so. They exchange small tensors of numbers and bytes on the CPU,
never objects.
"""

import logging
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import Store, TCPStore

from trainer.common.errors import DataError, Diverged, OutOfMemory, TrainerError, UserError
from trainer.common.outcomes import outcome_of
from trainer.spec import Outcome

_FAILURES: dict[Outcome, type[TrainerError]] = {
    Outcome.OOM: OutOfMemory,
    Outcome.DIVERGED: Diverged,
    Outcome.DATA_ERROR: DataError,
    Outcome.USER_ERROR: UserError,
}
_OUTCOMES = tuple(Outcome)
_MESSAGE_BYTES = 1024
_OUT_OF_MEMORY = "out of memory"

_log = logging.getLogger("trainer.worker")

Value = TypeVar("Value")


@dataclass(frozen=True)
class Ranks:
    """This process among the `size` of its group; without a group, the only one, which agrees with itself."""

    rank: int = 0
    size: int = 1
    group: dist.ProcessGroup | None = None
    store: Store | None = None

    @property
    def leads(self) -> bool:
        """Whether this is the rank that talks, writes and decides."""
        return self.rank == 0

    def share(self, start: int, stop: int) -> tuple[int, int]:
        """This rank's part of the positions start..stop-1: contiguous, sizes differ by one at most."""
        count = stop - start
        return start + count * self.rank // self.size, start + count * (self.rank + 1) // self.size

    def largest_share(self, count: int) -> int:
        """The most that any rank has of `count` positions."""
        return -(-count // self.size)

    def agree(self, failure: Exception | None = None, sums: Sequence[float] = ()) -> list[float]:
        """All ranks together: `sums` added up over the ranks in float64, unless one of them failed.

        Raises:
            TrainerError: this rank's own failure, or one of the same outcome in the words of the first that failed.
        """
        if self.size == 1:
            if failure is not None:
                raise failure
            return list(sums)
        flags = [0.0] * len(_OUTCOMES)
        outcome, message = outcome_of(failure) if failure is not None else (None, "")
        if outcome is not None:
            flags[_OUTCOMES.index(outcome)] = 1.0
        totals = self.add(torch.tensor([*sums, *flags], dtype=torch.float64)).tolist()
        if any(totals[len(sums) :]):
            self._fail(failure, outcome, message)
        return totals[: len(sums)]

    def attempt(
        self, build: Callable[[], Value], measure: Callable[[Value], Sequence[float]] = lambda _: ()
    ) -> tuple[Value, list[float]]:
        """All ranks together: what `build` gives here, and its measures added up, once it succeeded on every rank.

        Raises:
            TrainerError: for what `build` raised, here or elsewhere; see `agree`. A lone rank raises it as it is.
        """
        try:
            value = build()
        except Exception as failure:
            self.agree(failure)
            raise
        return value, self.agree(None, measure(value))

    def add(self, values: torch.Tensor) -> torch.Tensor:
        """All ranks together: the elementwise sum over the ranks, on the CPU."""
        if self.size == 1:
            return values
        total = values.cpu().clone()
        dist.all_reduce(total, group=self.group)
        return total

    def collect(self, values: torch.Tensor) -> list[torch.Tensor]:
        """All ranks together: every rank's `values` [same shape] on rank 0, on the CPU; nothing elsewhere."""
        if self.size == 1:
            return [values]
        mine = values.cpu().contiguous()
        parts = [torch.empty_like(mine) for _ in range(self.size)] if self.leads else []
        dist.gather(mine, parts or None, dst=0, group=self.group)
        return parts

    def gather(self, values: torch.Tensor) -> list[torch.Tensor]:
        """All ranks together: every rank's `values` [same shape], on the CPU."""
        if self.size == 1:
            return [values]
        parts = [torch.empty_like(values, device="cpu") for _ in range(self.size)]
        dist.all_gather(parts, values.cpu().contiguous(), group=self.group)
        return parts

    def tell(self, content: bytes = b"") -> bytes:
        """All ranks together: what rank 0 says; what the others pass is ignored."""
        if self.size == 1:
            return content
        length = torch.tensor([len(content)])
        dist.broadcast(length, src=0, group=self.group)
        said = torch.zeros(int(length), dtype=torch.uint8)
        if self.leads and content:
            said = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        if len(said):
            dist.broadcast(said, src=0, group=self.group)
        return said.numpy().tobytes()

    def decide(self, answer: bool) -> bool:
        """All ranks together: rank 0's answer to a question that clocks or disks may answer differently."""
        return answer if self.size == 1 else self.tell(b"\1" if answer else b"\0") == b"\1"

    def tell_out_of_memory(self) -> None:
        """Memory ran out here, in the middle of what all ranks do together. To be seen outside of that."""
        if self.store is not None:
            self.store.set(_OUT_OF_MEMORY, str(self.rank))

    def out_of_memory(self) -> int | None:
        """The rank that said so, if one did. May be called on any thread."""
        if self.store is None or not self.store.check([_OUT_OF_MEMORY]):
            return None
        return int(self.store.get(_OUT_OF_MEMORY))

    def _fail(self, failure: Exception | None, outcome: Outcome | None, message: str) -> None:
        """Raise what failed, told in the words of the first rank that did."""
        words = f"{outcome.value}\n{message}".encode() if outcome is not None else b""
        said = torch.zeros(_MESSAGE_BYTES, dtype=torch.uint8)
        said[: len(words)] = torch.tensor(list(words[:_MESSAGE_BYTES]), dtype=torch.uint8)
        texts = [part.numpy().tobytes().rstrip(b"\0").decode(errors="replace") for part in self.gather(said)]
        if isinstance(failure, TrainerError):
            raise failure
        if outcome is Outcome.INFRA_ERROR:
            _log.error("rank %d", self.rank, exc_info=failure)
        rank, text = next((rank, text) for rank, text in enumerate(texts) if text)
        name, _, reason = text.partition("\n")
        raise _FAILURES.get(Outcome(name), TrainerError)(f"rank {rank}: {reason}") from failure


def start_ranks(timeout_seconds: float, listener: socket.socket | None = None) -> Ranks:
    """Join the group that RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT describe.

    Rank 0 waits for the others at `listener` if it is given. A collective that takes longer than `timeout_seconds`
    fails on every rank, so that no hang lasts longer.
    """
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    timeout = timedelta(seconds=timeout_seconds)
    store = TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        world_size=size,
        is_master=rank == 0,
        timeout=timeout,
        master_listen_fd=listener.detach() if listener is not None else None,
    )
    if not torch.cuda.is_available():
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=timeout)
        return Ranks(rank, size, dist.group.WORLD, store)
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
    dist.init_process_group("nccl", store=store, rank=rank, world_size=size, timeout=timeout, device_id=device)
    return Ranks(rank, size, dist.new_group(backend="gloo", timeout=timeout), store)
