"""Who gets the free slots: the study of the highest priority, among equals the one that used least."""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

#: what was used so long ago counts half
_HALF_LIFE_SECONDS = 600.0


@dataclass(frozen=True, kw_only=True)
class Want:
    """A study that would take up to `most` slots. `used_seconds` and `slice_seconds` are device seconds.

    `running` is how many slices it has already, `slice_seconds` what another one is expected to take.
    """

    study_id: int
    priority: int
    project_id: int = 0
    ranks: int = 1
    most: int
    used_seconds: float = 0.0
    running: int = 0
    slice_seconds: float = 0.0
    prefetch: bool = True  #: whether its slices may be queued behind others


def allot(
    wants: Sequence[Want], slots: int, queued: int = 0, take: Callable[[Want], bool] = lambda _: True
) -> dict[int, int]:
    """How many of the free slots each study gets. The last `queued` of them are behind running slices.

    `take` is asked before each: False if the study's project may not have another one. A lower priority gets what the
    higher ones leave: its slices give way at their next rung, with nothing lost. Equal ones get their slots one by one,
    always the one that will have used least.
    """
    given = dict.fromkeys((want.study_id for want in wants), 0)
    queue = [(_key(want, 0), want) for want in wants if want.most > 0]
    heapq.heapify(queue)
    while queue and slots > 0:
        _, want = heapq.heappop(queue)
        if (slots <= queued and not want.prefetch) or not take(want):
            continue
        given[want.study_id] += 1
        slots -= 1
        if given[want.study_id] < want.most:
            heapq.heappush(queue, (_key(want, given[want.study_id]), want))
    return given


def _key(want: Want, given: int) -> tuple[int, float, int, int]:
    seconds = want.used_seconds + given * want.slice_seconds
    return -want.priority, seconds, want.running + given, want.study_id


@dataclass(kw_only=True)
class Usage:
    """What a study used lately: what is long ago fades."""

    seconds: float = 0.0
    total_seconds: float = 0.0
    at: float = 0.0

    def update(self, total_seconds: float, now: float) -> float:
        """Take what the study has used in all, by the clock `now`; answers what counts of it."""
        faded: float = 0.5 ** (max(0.0, now - self.at) / _HALF_LIFE_SECONDS)
        self.seconds = self.seconds * faded + max(0.0, total_seconds - self.total_seconds)
        self.total_seconds, self.at = total_seconds, now
        return self.seconds


@dataclass(kw_only=True)
class Usages:
    """By study. What was used before this process led counts for nobody."""

    _known: dict[int, Usage] = field(default_factory=dict)

    def lately(self, study_id: int, total_seconds: float, now: float) -> float:
        """Device seconds that count for the study."""
        usage = self._known.setdefault(study_id, Usage(total_seconds=total_seconds, at=now))
        return usage.update(total_seconds, now)

    def retain(self, study_ids: set[int]) -> None:
        """Forget all others."""
        self._known = {study_id: usage for study_id, usage in self._known.items() if study_id in study_ids}
