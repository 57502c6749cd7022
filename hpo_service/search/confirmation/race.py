"""The race: every round gives one seed to every candidate that is still in it. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from hpo_service.search.confirmation.statistics import Difference, RunResult, difference
from hpo_service.spec.confirmation import Candidate, ConfirmationPlan

Results = Mapping[tuple[int, int], RunResult | None]
"""By candidate and seed, of the runs that ended; None: the run failed."""


@dataclass(frozen=True)
class Exit:
    """Why a candidate is out: another one is known to be better, a run of it failed, or the share is spent."""

    why: Literal["behind", "failed", "unpaid"]
    words: str


@dataclass(frozen=True, kw_only=True)
class Round:
    """`field` are the candidates that get the seed, the most interesting first; `out` says why others do not."""

    seed: int
    field: tuple[int, ...]
    out: Mapping[int, Exit]


@dataclass(frozen=True, kw_only=True)
class Course:
    """The rounds that are known so far; `ended` says why no other follows, None while the last one is not through."""

    rounds: tuple[Round, ...]
    ended: str | None
    out: Mapping[int, Exit] = field(default_factory=dict)


def course(plan: ConfirmationPlan, results: Results) -> Course:
    """Follow the race through `results`.

    The best of the search and the baseline get the first seed whatever it costs; all else must fit `max_examples`. A
    candidate is out once its interval separates from the leader's, or a run of it fails. Every round is decided from
    the rounds before it alone, so the order in which runs end does not matter.
    """
    rounds: list[Round] = []
    out: dict[int, Exit] = {}
    planned = 0
    alive = _start_order(plan.candidates)
    fewest = min(2, len(alive))
    for index, seed in enumerate(plan.seeds):
        if index:
            alive = _survivors(plan, plan.seeds[:index], alive, results, out)
        if len(alive) < fewest:
            return Course(rounds=tuple(rounds), ended=_won(alive, out), out=out)
        chosen, planned = _affordable(plan, alive, planned, guaranteed=0 if index else fewest)
        if len(chosen) < fewest:
            spent = f"another round does not fit {plan.max_examples} examples, the share of a confirmation"
            return Course(rounds=tuple(rounds), ended=spent, out=out)
        for number in alive[len(chosen) :]:
            out[number] = Exit("unpaid", f"no examples were left for it{f' after {_seeds(index)}' if index else ''}")
        alive = chosen
        rounds.append(Round(seed=seed, field=tuple(alive), out=dict(out)))
        if any((number, seed) not in results for number in alive):
            return Course(rounds=tuple(rounds), ended=None, out=out)
    _survivors(plan, plan.seeds, alive, results, out)
    return Course(rounds=tuple(rounds), ended=f"every candidate that is left has {_seeds(len(plan.seeds))}", out=out)


def most_runs(plan: ConfirmationPlan) -> int:
    """How many runs there are if nobody drops out."""
    runs, planned, alive = 0, 0, _start_order(plan.candidates)
    fewest = min(2, len(alive))
    for index in range(len(plan.seeds)):
        alive, planned = _affordable(plan, alive, planned, guaranteed=0 if index else fewest)
        if len(alive) < fewest:
            break
        runs += len(alive)
    return runs


def compare(plan: ConfirmationPlan, known: Sequence[RunResult], candidate: int, other: int) -> Difference | None:
    """Their paired interval, so wide that looking after every seed, at every rival, misleads about neither of them."""
    comparisons = max(1, len(plan.seeds) * (len(plan.candidates) - 1))
    return difference(known, candidate, other, comparisons=comparisons)


def _start_order(candidates: Sequence[Candidate]) -> list[int]:
    """The best of the search, the baseline, the others."""
    searched = [one.trial_number for one in candidates if not one.baseline]
    return [*searched[:1], *(one.trial_number for one in candidates if one.baseline), *searched[1:]]


def _survivors(
    plan: ConfirmationPlan, seeds: Sequence[int], alive: Sequence[int], results: Results, out: dict[int, Exit]
) -> list[int]:
    """Who goes on after these seeds: the leader, the baseline, the others by their means. The rest is put `out`."""
    known = [result for (_, seed), result in results.items() if result is not None and seed in seeds]
    means: dict[int, float] = {}
    for number in alive:
        losses = [result.loss for seed in seeds if (result := results.get((number, seed))) is not None]
        if len(losses) < len(seeds):
            out[number] = Exit("failed", f"it failed with seed {seeds[-1]}")
        else:
            means[number] = math.fsum(losses) / len(losses)
    ranked = sorted(means, key=lambda number: (means[number], number))
    for number in ranked[1:]:
        gap = compare(plan, known, number, ranked[0])
        if gap is not None and gap.separated:
            # Without the interval: it was one of that moment, and later runs of others have changed it since.
            out[number] = Exit("behind", f"clearly behind trial {ranked[0]} after {_seeds(gap.seeds)}")
    left = [number for number in ranked if number not in out]
    baseline = {one.trial_number for one in plan.candidates if one.baseline}
    return sorted(left, key=lambda number: (number != left[0], number not in baseline, ranked.index(number)))


def _affordable(
    plan: ConfirmationPlan, wanted: Sequence[int], planned: int, *, guaranteed: int
) -> tuple[list[int], int]:
    """The first of `wanted` that fit what is left, and what is planned with them."""
    chosen: list[int] = []
    for number in wanted:
        cost = plan.candidate(number).run_examples
        if len(chosen) >= guaranteed and planned + cost > plan.max_examples:
            break
        chosen.append(number)
        planned += cost
    return chosen, planned


def _won(alive: Sequence[int], out: Mapping[int, Exit]) -> str:
    if not alive:
        return "no run reached its end"
    if any(one.why == "unpaid" for one in out.values()):
        return f"of the candidates that examples were left for, no other keeps up with trial {alive[0]}"
    return f"no other candidate keeps up with trial {alive[0]}"


def _seeds(count: int) -> str:
    return "one seed" if count == 1 else f"{count} seeds"
