"""What a confirmation has found, as numbers. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import stdev

from hpo_service.search.best import Confirmed
from hpo_service.search.confirmation.race import Exit, compare, course
from hpo_service.search.confirmation.runs import RunFacts
from hpo_service.search.confirmation.statistics import Difference, RunResult
from hpo_service.spec.confirmation import Candidate, ConfirmationPlan


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One candidate. Means and spread (standard deviation) are over its complete runs; `out` says why it left.

    A run of it takes `examples`.
    """

    trial_number: int
    baseline: bool
    examples: int
    runs: tuple[RunFacts, ...]
    seeds: int
    mean: float | None
    spread: float | None
    test_loss: float | None
    flops: float | None
    seconds: float | None
    out: Exit | None

    @property
    def test_losses(self) -> Mapping[int, float]:
        """By seed."""
        return {run.seed: run.test_loss for run in self.runs if run.state == "complete" and run.test_loss is not None}

    def saves(self, other: "Standing") -> float:
        """The share of the other's training that this one does without: of FLOPs, else of measured seconds; else 0."""
        for ours, theirs in ((self.flops, other.flops), (self.seconds, other.seconds)):
            if ours is not None and theirs:
                return 1 - ours / theirs
        return 0.0


@dataclass(frozen=True, kw_only=True)
class Report:
    """`differences` are of every two candidates that share a seed; against the baseline it is the second one.

    `finalists` are those that never left, over the seeds that all of them have.
    """

    standings: tuple[Standing, ...]
    differences: tuple[Difference, ...]
    finalists: tuple[Confirmed, ...]
    ended: str | None

    @property
    def baseline(self) -> Standing | None:
        """Among the standings, if it is a candidate."""
        return next((one for one in self.standings if one.baseline), None)

    def standing(self, candidate: int) -> Standing:
        """Of this candidate."""
        return next(one for one in self.standings if one.trial_number == candidate)

    def difference(self, candidate: int, other: int) -> Difference | None:
        """Loss of the first minus loss of the second, if they share a seed."""
        for one in self.differences:
            if (one.candidate, one.other) == (candidate, other):
                return one
            if (one.candidate, one.other) == (other, candidate):
                return replace(one, candidate=candidate, other=other, mean=-one.mean)
        return None


def report(plan: ConfirmationPlan, runs: Sequence[RunFacts]) -> Report:
    """Read what is known so far; candidates with the lowest means first."""
    results = {(run.candidate, run.seed): run.result for run in runs if run.counts}
    state = course(plan, results)
    known = [result for result in results.values() if result is not None]
    standings = [
        _standing(one, [run for run in runs if run.candidate == one.trial_number], state.out) for one in plan.candidates
    ]
    order = sorted(standings, key=lambda one: (one.mean is None, one.mean or 0.0, one.trial_number))
    pairs = [(first, second) if not first.baseline else (second, first) for first, second in combinations(order, 2)]
    found = [compare(plan, known, one.trial_number, other.trial_number) for one, other in pairs]
    field = [number for number in (state.rounds[-1].field if state.rounds else ()) if number not in state.out]
    return Report(
        standings=tuple(order),
        differences=tuple(one for one in found if one is not None),
        finalists=tuple(_finalists(plan, field, standings, known)),
        ended=state.ended,
    )


def _standing(planned: Candidate, runs: Sequence[RunFacts], out: Mapping[int, Exit]) -> Standing:
    complete = [run for run in runs if run.state == "complete"]
    losses = [run.loss for run in complete if run.loss is not None]
    return Standing(
        trial_number=planned.trial_number,
        baseline=planned.baseline,
        examples=planned.run_examples,
        runs=tuple(runs),
        seeds=len(losses),
        mean=_mean(losses),
        spread=stdev(losses) if len(losses) > 1 else None,
        test_loss=_mean([run.test_loss for run in complete if run.test_loss is not None]),
        flops=_mean_if_known([run.flops for run in complete]),
        seconds=_mean_if_known([run.seconds for run in complete]),
        out=out.get(planned.trial_number),
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
        tested = by_number[number].test_losses
        gap = None if baseline in (None, number) else compare(plan, known, number, baseline or 0)
        shared = [seed for seed in plan.seeds if {(baseline, seed), (number, seed)} <= set(losses)]
        found.append(
            Confirmed(
                trial_number=number,
                mean=math.fsum(own) / len(own),
                spread=stdev(own) if len(own) > 1 else None,
                seeds=len(own),
                test_loss=_mean([tested[seed] for seed in seeds if seed in tested]),
                baseline_number=baseline,
                shared_seeds=len(shared),
                shared_mean=_mean([losses[number, seed] for seed in shared]),
                baseline_mean=_mean([losses[baseline or 0, seed] for seed in shared]),
                difference=0.0 if number == baseline else None if gap is None else gap.mean,
                half_width=None if gap is None else gap.half_width,
            )
        )
    return found


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _mean_if_known(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return _mean(known) if len(known) == len(values) else None
