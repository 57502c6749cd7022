"""Which workers a cluster should have, from what studies want: pure rules."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from hpo_service.executors.base import Wanted


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One worker as the plan sees it. `idle_seconds` is 0 while it holds anything or is not there yet."""

    worker: str
    ranks: int
    placed: bool = True
    busy: bool = False
    idle_seconds: float = 0.0
    base: str = ""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Sizes of the workers to start, and the workers to let go once they are idle, first the least useful."""

    start: tuple[int, ...] = ()
    let_go: tuple[str, ...] = ()


def plan(
    wanted: Sequence[Wanted], devices: int, workers: Sequence[Standing], *, slots: int, keep_idle_seconds: float
) -> Plan:
    """What to change so that the `devices` serve what is `wanted`, the most urgent first.

    A worker of a size that is not wanted makes room as soon as another size needs its devices. Whatever nobody wants
    ends after it was idle for `keep_idle_seconds`, down to no worker at all. Of the idle ones those go first that hold
    a base nobody wants, then those that were idle longest.
    """
    target = Counter(sizes(wanted, devices, slots))
    present = Counter(standing.ranks for standing in workers)
    missing = list((target - present).elements())
    surplus = present - target
    bases = {want.base for want in wanted}
    ranked = sorted(workers, key=lambda one: (one.placed, one.busy, one.base in bases, -one.idle_seconds))
    room = devices - sum(standing.ranks for standing in workers)
    let_go = []
    for standing in ranked:
        if surplus[standing.ranks] <= 0:
            continue
        pressed = sum(missing) > room or not standing.placed
        if pressed or standing.idle_seconds >= keep_idle_seconds:
            surplus[standing.ranks] -= 1
            let_go.append(standing.worker)
            room += standing.ranks
    return Plan(start=_fitting(missing, devices - sum(present.elements())), let_go=tuple(let_go))


def sizes(wanted: Sequence[Wanted], devices: int, slots: int) -> list[int]:
    """Sizes of the workers that are wanted and fit on so many devices.

    Every size gets one worker before the most urgent ones get as many as they have slices for.
    """
    chosen: list[int] = []
    free = devices
    for want in wanted:
        if want.ranks <= free and want.ranks not in chosen:
            chosen.append(want.ranks)
            free -= want.ranks
    needed = Counter[int]()
    for want in wanted:
        needed[want.ranks] += _workers_for(want, slots)
        more = min(needed[want.ranks] - chosen.count(want.ranks), free // want.ranks)
        chosen += [want.ranks] * more
        free -= want.ranks * max(0, more)
    return chosen


def _workers_for(want: Wanted, slots: int) -> int:
    """The trials of a group share one adapter, so it has one slot whatever the others have."""
    return -(-want.slices // (slots if want.ranks == 1 else 1))


def _fitting(missing: Collection[int], room: int) -> tuple[int, ...]:
    """Those that have room now; the others wait until somebody left."""
    start = []
    for size in missing:
        if size <= room:
            start.append(size)
            room -= size
    return tuple(start)
