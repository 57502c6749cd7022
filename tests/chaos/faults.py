"""Which faults happen when: all of it follows from the seed."""

import random
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What can happen."""

    KILL_WORKER = "kill_worker"
    STOP_WORKER = "stop_worker"  #: SIGSTOP, and SIGCONT when it is over
    KILL_LEADER = "kill_leader"  #: the dispatcher that holds the lease, and its workers with it
    KILL_STANDBY = "kill_standby"
    STOP_LEADER = "stop_leader"  #: long enough, it wakes up as one that leads no more
    RESTART_LEADER = "restart_leader"  #: SIGTERM: what runs is asked to stop and the lease is handed back
    SKEW_LEADER = "skew_leader"  #: killed, and started again with another clock
    KILL_API = "kill_api"
    STOP_API = "stop_api"
    RESTART_DATABASE = "restart_database"  #: immediate shutdown, crash recovery
    DROP_CONNECTIONS = "drop_connections"  #: the server ends every session
    HOLD_ROUTE = "hold_route"  #: one half of the service hears nothing from PostgreSQL, then its connections are cut
    DROP_REPLIES = "drop_replies"  #: what it commits is committed and it is not told
    CUT_ROUTE = "cut_route"
    FILL_DISK = "fill_disk"  #: no worker can write a file
    DAMAGE_SNAPSHOT = "damage_snapshot"  #: bits flip, a file is cut short or gone


#: how often each comes, and how long the ones that last do, in seconds
_WEIGHTS = {
    Kind.KILL_WORKER: 5,
    Kind.STOP_WORKER: 3,
    Kind.KILL_LEADER: 3,
    Kind.KILL_STANDBY: 1,
    Kind.STOP_LEADER: 2,
    Kind.RESTART_LEADER: 2,
    Kind.SKEW_LEADER: 1,
    Kind.KILL_API: 3,
    Kind.STOP_API: 1,
    Kind.RESTART_DATABASE: 2,
    Kind.DROP_CONNECTIONS: 3,
    Kind.HOLD_ROUTE: 2,
    Kind.DROP_REPLIES: 3,
    Kind.CUT_ROUTE: 2,
    Kind.FILL_DISK: 2,
    Kind.DAMAGE_SNAPSHOT: 4,
}
_LASTS = {
    Kind.STOP_WORKER: (0.5, 4.0),
    Kind.STOP_LEADER: (1.0, 11.0),
    Kind.STOP_API: (0.5, 3.0),
    Kind.RESTART_DATABASE: (0.2, 2.0),
    Kind.HOLD_ROUTE: (0.5, 6.0),
    Kind.DROP_REPLIES: (0.1, 0.5),
    Kind.FILL_DISK: (0.5, 3.0),
}
_PAUSE_SECONDS = (0.3, 1.8)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that happens `at` so many seconds and is over `lasts` seconds later; `pick` chooses among victims."""

    at: float
    kind: Kind
    lasts: float
    pick: float

    def __str__(self) -> str:
        lasts = f" for {self.lasts:.1f} s" if self.lasts else ""
        return f"{self.at:5.1f} s  {self.kind}{lasts}"


def schedule(seed: int, seconds: float, without: frozenset[Kind]) -> list[Fault]:
    """Faults of the first `seconds`, in order."""
    source = random.Random(seed)
    kinds = [kind for kind in _WEIGHTS if kind not in without]
    weights = [_WEIGHTS[kind] for kind in kinds]
    faults, at = [], 1.0
    while at < seconds:
        (kind,) = source.choices(kinds, weights)
        lasts = source.uniform(*_LASTS[kind]) if kind in _LASTS else 0.0
        faults.append(Fault(at=at, kind=kind, lasts=lasts, pick=source.random()))
        at += source.uniform(*_PAUSE_SECONDS)
    return faults
