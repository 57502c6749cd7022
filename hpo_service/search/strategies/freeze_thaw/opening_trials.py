"""How a study begins that has a past: with what was good before, as long as it is not bad here."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from hpo_service.search.strategies import ranking
from hpo_service.search.strategies.base import StudyView, TrialView
from hpo_service.search.strategies.freeze_thaw.cube import Cube
from hpo_service.search.strategies.freeze_thaw.gaussian_process import Array
from hpo_service.search.strategies.freeze_thaw.past import Past

_POINTS = 8
_COMPARED = 16


class Opening:
    """Read from one view. The portfolio's first point is the leader."""

    def __init__(self, view: StudyView, cube: Cube, past: Past) -> None:
        self._view, self._cube, self._past = view, cube, past

    @cached_property
    def points(self) -> Array:
        """The portfolio [points, dimensions]."""
        return self._past.portfolio(_POINTS)

    @property
    def tried(self) -> int:
        """How many of the points were started."""
        keys = set(self._keys)
        return sum(key_of(trial.sampled) in keys for trial in self._view.trials)

    @cached_property
    def misleads(self) -> bool:
        """True if of the points that were tried all are in the worse half at the first rung."""
        tried = set(self._keys)
        found = [key_of(trial.sampled) in tried for trial in self._ranked]
        return any(found) and not any(found[: (len(found) + 1) // 2])

    @property
    def leader(self) -> TrialView | None:
        """The first point's trial if it waits short of its end and is not in the worse half at the first rung."""
        better, first = self._ranked[: (len(self._ranked) + 1) // 2], next(iter(self._keys), "")
        for trial in better:
            if trial.standing == "paused" and trial.next_rung and key_of(trial.sampled) == first:
                return trial
        return None

    @cached_property
    def _ranked(self) -> list[TrialView]:
        """The first trials only: later ones are chosen, and mostly good."""
        return ranking.ranked(self._view.trials[: max(_COMPARED, self._view.slots)], self._view.ladder[0])

    @cached_property
    def _keys(self) -> list[str]:
        found = [self._cube.assignment(point) for point in self.points]
        return ["" if assignment is None else key_of(assignment.sampled) for assignment in found]


def key_of(sampled: Mapping[str, Any]) -> str:
    """The same for the same configuration."""
    return repr(sorted(sampled.items()))
