"""What a confirmation has found, as numbers and as the sentence that a person needs. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import stdev
from typing import Literal

from hpo_service.best import Confirmed
from hpo_service.confirmation.race import course
from hpo_service.confirmation.statistics import Difference, RunResult, difference
from hpo_service.spec.confirmation import ConfirmationPlan

RunState = Literal["running", "complete", "failed"]

_CHEAPER = 0.95


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """One run; `trial_number` counts within the confirmation. `cost` is in whatever unit all runs share."""

    trial_number: int
    candidate: int
    seed: int
    state: RunState
    loss: float | None = None
    folds: tuple[float, ...] = ()
    test_loss: float | None = None
    cost: float | None = None


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One candidate. Mean and spread (standard deviation) are over its complete runs; `out` says why it left."""

    trial_number: int
    baseline: bool
    runs: tuple[RunFacts, ...]
    seeds: int
    mean: float | None
    spread: float | None
    test_loss: float | None
    cost: float | None
    out: str | None


@dataclass(frozen=True, kw_only=True)
class Report:
    """`differences` are of every two candidates that share a seed; against the baseline it is the second one.

    `finalists` are those that never left, over the seeds that all of them have.
    """

    standings: tuple[Standing, ...]
    differences: tuple[Difference, ...]
    finalists: tuple[Confirmed, ...]
    ended: str | None

    def difference(self, candidate: int, other: int) -> Difference | None:
        """The two in this order, if they are known so."""
        return next((one for one in self.differences if (one.candidate, one.other) == (candidate, other)), None)


def report(plan: ConfirmationPlan, runs: Sequence[RunFacts]) -> Report:
    """Read what is known so far; candidates with the lowest means first."""
    results = {(run.candidate, run.seed): _result(run) for run in runs if run.state != "running"}
    state = course(plan, results)
    known = [result for result in results.values() if result is not None]
    standings = [
        _standing(one.trial_number, one.baseline, [run for run in runs if run.candidate == one.trial_number], state.out)
        for one in plan.candidates
    ]
    order = sorted(standings, key=lambda one: (one.mean is None, one.mean or 0.0, one.trial_number))
    pairs = [(first, second) if not first.baseline else (second, first) for first, second in combinations(order, 2)]
    found = [difference(known, one.trial_number, other.trial_number) for one, other in pairs]
    field = [number for number in (state.rounds[-1].field if state.rounds else ()) if number not in state.out]
    return Report(
        standings=tuple(order),
        differences=tuple(one for one in found if one is not None),
        finalists=tuple(_finalists(plan, field, standings, known)),
        ended=state.ended,
    )


def sentence(found: Report, *, over: bool) -> str:
    """Who won, against what, and who cannot be told from the winner. `over`: no other run will follow."""
    if not found.finalists:
        if found.ended is not None:
            return "Nothing could be confirmed: no run ended well."
        early = "Nothing could be confirmed: it ended before every candidate had a run with the same seed."
        return early if over else "Nothing is confirmed yet."
    winner = min(found.finalists, key=lambda one: (one.mean, one.trial_number))
    parts = [_against_baseline(found, winner), *_ties(found, winner), *_tested(found, winner)]
    if winner.seeds == 1:
        parts.append("With one seed each, how much seeds matter is assumed and not measured")
    return ". ".join(parts) + "."


def _against_baseline(found: Report, winner: Confirmed) -> str:
    baseline = next((one for one in found.standings if one.baseline), None)
    name = f"Trial {winner.trial_number}"
    spread = "" if winner.spread is None else f" ± {winner.spread:.4f}"
    mean = f"{winner.mean:.4f}{spread} over {_seeds(winner.seeds)}"
    if baseline is None:
        return f"{name} has a loss of {mean}; there is no baseline to compare it with"
    if baseline.trial_number == winner.trial_number:
        return f"No configuration beats your current one, which has a loss of {mean}"
    gap = found.difference(winner.trial_number, baseline.trial_number)
    if gap is None:
        return f"{name} has a loss of {mean}; your current configuration has no run with the same seed"
    amount = f"{abs(gap.mean):.4f} ± {gap.half_width:.4f} loss"
    if gap.separated:
        return f"{name} {'beats' if gap.mean < 0 else 'is behind'} your current configuration by {amount} ({mean})"
    word = "lower" if gap.mean <= 0 else "higher"
    return (
        f"{name} and your current configuration cannot be told apart ({amount} {word}): "
        "no configuration is known to beat yours"
    )


def _ties(found: Report, winner: Confirmed) -> list[str]:
    """Finalists other than the winner and the baseline: nobody who left can be one."""
    by_number = {one.trial_number: one for one in found.standings}
    tied = [
        by_number[one.trial_number]
        for one in found.finalists
        if one.trial_number != winner.trial_number and not by_number[one.trial_number].baseline
    ]
    if not tied or by_number[winner.trial_number].baseline:
        return []
    names = sorted([winner.trial_number, *(one.trial_number for one in tied)])
    parts = [f"Trials {', '.join(map(str, names[:-1]))} and {names[-1]} cannot be told apart"]
    cost = by_number[winner.trial_number].cost
    cheapest = min((one for one in tied if one.cost is not None), key=lambda one: one.cost or 0.0, default=None)
    if cost and cheapest is not None and cheapest.cost is not None and cheapest.cost < _CHEAPER * cost:
        parts.append(f"Trial {cheapest.trial_number} is {1 - cheapest.cost / cost:.0%} cheaper to train")
    return parts


def _tested(found: Report, winner: Confirmed) -> list[str]:
    if winner.test_loss is None:
        return []
    baseline = next((one for one in found.standings if one.baseline and one.test_loss is not None), None)
    against = ""
    if baseline is not None and baseline.trial_number != winner.trial_number:
        against = f", your current configuration {baseline.test_loss:.4f}"
    return [f"On the test rows trial {winner.trial_number} has a loss of {winner.test_loss:.4f}{against}"]


def _standing(number: int, baseline: bool, runs: Sequence[RunFacts], out: Mapping[int, str]) -> Standing:
    complete = [run for run in runs if run.state == "complete"]
    losses = [run.loss for run in complete if run.loss is not None]
    return Standing(
        trial_number=number,
        baseline=baseline,
        runs=tuple(runs),
        seeds=len(losses),
        mean=_mean(losses),
        spread=stdev(losses) if len(losses) > 1 else None,
        test_loss=_mean([run.test_loss for run in complete if run.test_loss is not None]),
        cost=_mean([run.cost for run in complete if run.cost is not None]),
        out=out.get(number),
    )


def _finalists(
    plan: ConfirmationPlan, field: Sequence[int], standings: Sequence[Standing], known: Sequence[RunResult]
) -> list[Confirmed]:
    losses = {(result.candidate, result.seed): result.loss for result in known}
    seeds = [seed for seed in plan.seeds if field and all((number, seed) in losses for number in field)]
    if not seeds:
        return []
    by_number = {one.trial_number: one for one in standings}
    baseline = next((one.trial_number for one in standings if one.baseline), None)
    found = []
    for number in field:
        own = [losses[number, seed] for seed in seeds]
        gap = None if baseline in (None, number) else difference(known, number, baseline or 0)
        shared = [
            losses[baseline or 0, seed] for seed in plan.seeds if {(baseline, seed), (number, seed)} <= set(losses)
        ]
        found.append(
            Confirmed(
                trial_number=number,
                mean=math.fsum(own) / len(own),
                spread=stdev(own) if len(own) > 1 else None,
                seeds=len(own),
                test_loss=by_number[number].test_loss,
                baseline_number=baseline,
                baseline_mean=_mean(shared),
                difference=0.0 if number == baseline else None if gap is None else gap.mean,
                half_width=None if gap is None else gap.half_width,
            )
        )
    return found


def _result(run: RunFacts) -> RunResult | None:
    if run.state != "complete" or run.loss is None:
        return None
    return RunResult(candidate=run.candidate, seed=run.seed, loss=run.loss, folds=run.folds)


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _seeds(count: int) -> str:
    return "one seed" if count == 1 else f"{count} seeds"
