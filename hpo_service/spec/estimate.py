"""What a study will probably take, before anything is trained."""

import math
from statistics import fmean

from hpo_service.core import study_rules
from hpo_service.spec.resolved import ResolvedStudy
from hpo_service.spec.sampler_support import sampler_advice
from hpo_service.spec.space import SearchSpace, advice
from trainer.data.rows import total_examples
from trainer.spec import Frozen

ASHA_SURPLUS = 1.5
"""Promotions per place of a rung: trials improve during a search, so later ones displace earlier ones (simulated)."""
FREEZE_THAW_SURVIVORS = 0.6
"""Share of trials that are resumed from a rung of freeze-thaw search (simulated)."""
FREEZE_THAW_ENDS = 3.0
"""So many trials at least are trained to their end by freeze-thaw search (simulated)."""
MEDIAN_SURVIVORS = 0.75
"""Share of trials that pass a rung: early trials have too few peers to be pruned (simulated)."""


class Estimate(Frozen):
    """Expected numbers; `expected_share` compares with training every trial to its end.

    A confirmation comes on top, with at most so many runs and examples; None without one.
    """

    dimensions: int
    trials: int
    slices: int
    ladder: tuple[int, ...]
    expected_examples: int
    full_examples: int
    expected_share: float
    confirmation_examples: int | None
    confirmation_runs: int | None
    warnings: tuple[str, ...]


def estimate(resolved: ResolvedStudy) -> Estimate:
    """Trials are taken to have the mean number of epochs; the budget in examples caps the expectation."""
    space = resolved.search_space()
    totals = [total_examples(resolved.train_rows, probe.parameters.epochs) for probe in space.probes]
    mean_total = max(1, round(fmean(totals)))
    rungs = (*(rung for rung in resolved.ladder if rung < mean_total), mean_total)
    counts = expected_trials(resolved, len(rungs))
    examples = sum(count * (end - start) for count, start, end in zip(counts, (0, *rungs), rungs, strict=False))
    cap = resolved.budget.max_examples
    expected = round(examples if cap is None else min(examples, cap))
    full = resolved.budget.max_trials * mean_total
    runs = _confirmation_runs(resolved, cap or expected, mean_total)
    return Estimate(
        dimensions=len(space.dimensions),
        trials=resolved.budget.max_trials,
        slices=round(sum(counts)),
        ladder=resolved.ladder,
        expected_examples=expected,
        full_examples=full,
        expected_share=expected / full,
        confirmation_examples=None if runs is None else runs * mean_total,
        confirmation_runs=runs,
        warnings=(*warnings(resolved, space), *_unpaid_runs(resolved, runs, cap or expected, mean_total)),
    )


def warnings(resolved: ResolvedStudy, space: SearchSpace) -> list[str]:
    """Sentences about what is allowed but probably not meant."""
    found = advice(space, resolved.budget.max_trials)
    if resolved.baseline is None:
        why = "" if resolved.preset is None else ": the preset's published values do not lie in this space"
        found.append(f"no baseline{why}; write `baseline` to compare with what you have.")
    if resolved.search.deterministic and resolved.budget.max_parallel > 1:
        found.append(
            f"deterministic with {resolved.budget.max_parallel} slices in parallel: the order in which they end still "
            "decides; max_parallel: 1 removes that."
        )
    if resolved.data.test is not None and resolved.confirm is None:
        found.append("data.test is looked at by a confirmation only; add `confirm: {}`.")
    if resolved.confirm is not None and resolved.budget.deadline is not None:
        found.append("the deadline holds for the confirmation too: what the search leaves of the time is all it gets.")
    found += sampler_advice(resolved.search, space, resolved.budget.max_trials)
    if resolved.eval_rows < 50:
        found.append(f"the loss is measured on {resolved.eval_rows} evaluation rows only; differences may be noise.")
    return found


def _unpaid_runs(resolved: ResolvedStudy, runs: int | None, bill_examples: int, mean_total: int) -> list[str]:
    """What `confirm.share` leaves of the runs that `confirm.top` and `confirm.seeds` ask for, where it is not all."""
    settings = resolved.confirm
    if settings is None or runs is None:
        return []
    baseline = int(resolved.baseline is not None)
    candidates = min(settings.top, resolved.budget.max_trials - baseline) + baseline
    asked = candidates * settings.seeds
    if runs >= asked:
        return []
    needed = asked * mean_total / bill_examples
    who = f"{candidates - baseline} trial(s){' and the baseline' if baseline else ''}"
    remedy = "lower top or seeds, or search more"
    if needed <= 1:
        remedy = f"confirm.share {math.ceil(100 * needed) / 100:g} pays for all"
    elif settings.share < 1:
        remedy = f"share 1 pays for {max(1 + baseline, bill_examples // mean_total)}; {remedy}"
    return [
        f"confirm asks for up to {asked} runs ({who}, {settings.seeds} seed(s) each), and its share of "
        f"{settings.share:g} of {bill_examples} examples pays for {runs}; {remedy}."
    ]


def _confirmation_runs(resolved: ResolvedStudy, bill_examples: int, mean_total: int) -> int | None:
    """Runs of mean length that fit the share, one each of the best and the baseline at least."""
    settings = resolved.confirm
    if settings is None:
        return None
    baseline = int(resolved.baseline is not None)
    candidates = min(settings.top, resolved.budget.max_trials - baseline) + baseline
    affordable = int(settings.share * bill_examples / mean_total)
    return min(max(affordable, 1 + baseline), candidates * settings.seeds)


def expected_trials(resolved: ResolvedStudy, rungs: int) -> list[float]:
    """How many trials are expected to be trained up to each rung; the baseline always goes to the end."""
    baseline = int(resolved.baseline is not None)
    searched = resolved.budget.max_trials - baseline
    fewest = FREEZE_THAW_ENDS if resolved.search.strategy == "freeze_thaw" else 1.0
    return [baseline + max(min(fewest, searched), searched * share) for share in _shares(resolved, rungs)]


def _shares(resolved: ResolvedStudy, rungs: int) -> list[float]:
    """The share of the searched trials that is expected at each rung."""
    search = resolved.search
    match search.strategy:
        case "asha":
            survivors = ASHA_SURPLUS / search.reduction_factor
        case "successive_halving":
            survivors = 1 / search.reduction_factor
        case "hyperband":
            begun = study_rules.bracket_shares(resolved.ladder, search.reduction_factor)
            survivors = ASHA_SURPLUS / search.reduction_factor
            return [
                sum(share * survivors ** max(0, index - first) for first, share in enumerate(begun))
                for index in range(rungs)
            ]
        case "freeze_thaw":
            survivors = FREEZE_THAW_SURVIVORS
        case "median":
            survivors = MEDIAN_SURVIVORS
        case "none":
            survivors = 1.0
    return [survivors**index for index in range(rungs)]
