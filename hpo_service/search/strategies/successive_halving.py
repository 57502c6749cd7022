"""Successive halving in brackets: a cohort of trials reaches a rung, then the best of it go on together.

Synchronous inside a bracket: nobody advances from a rung before all who are to reach it did or failed, so an early
trial gets no better chance than a late one. A slot that the brackets begun so far cannot use begins the next one.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil

from hpo_service.search.strategies import ranking
from hpo_service.search.strategies.base import Advance, Judgement, Start, Step, StudyView, TrialView

#: under this key the study remembers, for every bracket begun, the number after its last trial
_ENDS = "bracket_ends"


@dataclass(frozen=True)
class SuccessiveHalving:
    """The best one in `reduction_factor` trials of a bracket advance from a rung, one at least."""

    reduction_factor: int

    def propose(self, view: StudyView) -> Step:
        """The baseline, else an advance in the oldest bracket that has one, else a start, else the way to the end."""
        return ranking.first_duties(view) or self._advance(view) or self._start(view) or ranking.conclude(view)

    def judge(self, view: StudyView, trial_number: int) -> Judgement:
        """Always pause: the rung decides when all of the bracket are there."""
        trial = view.trials[trial_number]
        peers = next((bracket for bracket in _brackets(view) if trial in bracket), [trial])
        order = ranking.ranked(peers, trial.rung)
        place = f"rank {order.index(trial) + 1} of {len(order)} of its bracket at {trial.rung} examples"
        return Judgement(verdict="pause", reason=f"{place}; the best go on when all are there")

    def _advance(self, view: StudyView) -> Advance | None:
        for index, trials in enumerate(_brackets(view), start=1):
            if not _all_begun(view, index):
                continue
            for rung, best in self._decided_rungs(trials):
                for rank, trial in enumerate(best, start=1):
                    if trial.standing == "paused" and trial.rung == rung:
                        reason = f"bracket {index}: rank {rank} of the {len(best)} that go on from {rung} examples"
                        step = ranking.advance(trial, reason)
                        if step is not None:
                            return step
        return None

    def _decided_rungs(self, trials: list[TrialView]) -> Iterator[tuple[int, list[TrialView]]]:
        """Rungs that nobody of a bracket has yet to reach, lowest first, with those that go on from there."""
        alive = [trial for trial in trials if trial.standing not in ("failed", "pruned")]
        going_on: dict[int, set[int]] = {}
        for rung in sorted({rung for trial in alive for rung in trial.ladder}):
            expected = [trial for trial in alive if _is_expected(trial, rung, going_on)]
            if any(rung not in trial.losses for trial in expected):
                return
            order = ranking.ranked(alive, rung)
            best = order[: max(1, len(order) // self.reduction_factor)]
            going_on[rung] = {trial.number for trial in best}
            yield rung, best

    def _start(self, view: StudyView) -> Start | None:
        """Begin the next trial, and with it a bracket if those begun are full."""
        step = ranking.start(view)
        if step is None:
            return None
        number, ends = len(view.trials) if step.trial_number is None else step.trial_number, _ends(view)
        if ends and number < ends[-1]:
            return step
        return replace(step, memory={**view.memory, _ENDS: [*ends, number + self._size(view, number)]})

    def _size(self, view: StudyView, number: int) -> int:
        """Trials of a bracket: enough that one goes to the end and no slot idles; the remaining ones divided evenly."""
        remaining = view.max_trials - number
        brackets = max(1, round(remaining / float(self.reduction_factor) ** (len(view.ladder) - 1)))
        return max(view.slots, ceil(remaining / brackets))


def _is_expected(trial: TrialView, rung: int, going_on: dict[int, set[int]]) -> bool:
    """Whether a trial is to be evaluated at a rung: at its first one, and where it goes on to."""
    if rung == trial.ladder[0]:
        return True
    return any(
        following == rung and trial.number in going_on.get(before, ()) for before, following in pairwise(trial.ladder)
    )


def _ends(view: StudyView) -> list[int]:
    return list(view.memory.get(_ENDS, ()))


def _brackets(view: StudyView) -> list[list[TrialView]]:
    """The searched trials of each bracket begun."""
    return [
        [trial for trial in view.trials[start:end] if not trial.baseline] for start, end in pairwise((0, *_ends(view)))
    ]


def _all_begun(view: StudyView, index: int) -> bool:
    """Whether every trial of a bracket is there that there may be."""
    end = min(_ends(view)[index - 1], view.max_trials)
    return len(view.trials) >= end and not any(trial.standing == "waiting" for trial in view.trials[:end])
