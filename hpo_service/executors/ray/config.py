"""What the workers of a cluster are started with."""

from dataclasses import dataclass
from pathlib import Path

from hpo_service.executors.ray.protocol import Launch
from trainer.snapshots.stores.location import credential_prefixes


@dataclass(frozen=True, kw_only=True)
class RayWorkers:
    """`resource` is what the cluster calls a device. At most `max_devices` are asked for; 0: those that are there now.

    Workers that nobody wants stay for `idle_seconds`; without a dispatcher they stay for `orphan_seconds`. `snapshots`
    and the paths in studies must be the same on every node; `threads` are per device.
    """

    snapshots: str | Path
    threads: int
    slots: int = 1
    resident: int = 8
    resource: str = "GPU"
    max_devices: int = 0
    idle_seconds: float = 300.0
    orphan_seconds: int = 900
    rank_timeout_seconds: float = 600.0
    command: tuple[str, ...] = ("-m", "trainer.worker")

    def launches(self, ranks: int, leader: str) -> dict[int, Launch]:
        """What the host of each rank starts; rank 0 of several waits for the others at `leader`."""
        alone = [
            *self.command,
            *("--snapshots", str(self.snapshots)),
            *("--threads", str(self.threads)),
            *("--resident", str(self.resident)),
        ]
        group = ["--ranks", str(ranks), "--rank-timeout-seconds", str(self.rank_timeout_seconds), "--leader", leader]
        # The trials of a group share one adapter, so they do not take turns.
        return {
            rank: Launch(
                command=(*alone, *([*group, "--rank", str(rank)] if ranks > 1 else [])),
                rank=rank,
                ranks=ranks,
                slots=self.slots if ranks == 1 else 1,
                credentials=tuple(credential_prefixes(self.snapshots)),
            )
            for rank in range(ranks)
        }
