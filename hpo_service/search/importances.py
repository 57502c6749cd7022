"""Which parameters mattered, and whether the best values lie at the edge of the space.

Trials of all rungs count, paused and pruned ones too: their last losses are made comparable by taking the curve of a
middling trial off. Importances are PED-ANOVA's (Watanabe, Bansal, Hutter 2023): how much more often the best trials
have certain values of a parameter than all trials do. Shares sum to 1 even where nothing mattered, and after
few trials the first may well have half of it. So it is asked what chance alone would give, see `beyond_chance`.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import optuna
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import FrozenTrial, TrialState, create_trial

from hpo_service.core.errors import InvalidSpec
from hpo_service.search.strategies.base import TrialView
from hpo_service.search.strategies.freeze_thaw import curves
from hpo_service.search.strategies.freeze_thaw.settings import FreezeThawSettings
from hpo_service.spec.space import FloatRange, IntRange, NumberChoices, SearchSpace

Side = Literal["lower", "upper"]

FEWEST_TRIALS = 8
_FEWEST_BEST = 5
_LARGEST_SHARE_OF_BEST = 0.5
_SMALLEST_SHARE_OF_BEST = 0.1
_EDGE = 0.1
_MIDDLE = 0.5
_FEW_LEVELS = 10
_FEWEST_AT_EDGE = 3
#: so rarely, at most, would the best trials all lie at an edge if the parameter did not matter
_BY_CHANCE = 0.01
_LOG_FACTOR, _LOG_FACTOR_WHOLE = 3, 2
#: the score of a parameter is the largest of 20 by chance once in 20 times
_SHUFFLES = 19
_KEY = 0x5A4FF1E


@dataclass(frozen=True, kw_only=True)
class Edge:
    """The best `trials` trials all have this parameter at one end of its range. `change` would widen the range."""

    parameter: str
    side: Side
    best: float
    low: float
    high: float
    trials: int
    change: Mapping[str, Any]


def ranked(trials: Sequence[TrialView], ladder: Sequence[int]) -> list[tuple[TrialView, float]]:
    """Trials that have a loss and did not fail, best first, each with its comparable loss (lower is better)."""
    measured = [trial for trial in trials if trial.standing != "failed" and _finite(trial)]
    if not measured:
        return []
    known = curves.read(measured, ladder, FreezeThawSettings().squash)
    last = dict(zip(known.rows.tolist(), known.values.tolist(), strict=True))
    return sorted(((measured[row], value) for row, value in last.items()), key=lambda pair: (pair[1], pair[0].number))


def importances(space: SearchSpace, trials: Sequence[TrialView], ladder: Sequence[int]) -> dict[str, float]:
    """Shares by parameter that sum to 1, largest first; nothing before there are enough trials to compare.

    Of a parameter that never varied nothing is known, so it has no share; see `unexplored`.
    """
    known = ranked(trials, ladder)
    found = _scores(space, [trial for trial, _ in known], [value for _, value in known])
    total = sum(found.values()) or 1.0
    return {name: value / total for name, value in sorted(found.items(), key=lambda entry: (-entry[1], entry[0]))}


def beyond_chance(space: SearchSpace, trials: Sequence[TrialView], ladder: Sequence[int]) -> list[str]:
    """Parameters that score higher than any does in 19 shuffles of the losses among the trials.

    So where nothing matters, one time in 20 at most some parameter is named (a permutation test with the largest score
    as its statistic: Westfall and Young 1993). With few trials even one that matters is often not.
    """
    known = ranked(trials, ladder)
    compared, values = [trial for trial, _ in known], np.array([value for _, value in known])
    found = _scores(space, compared, values.tolist())
    if not found:
        return []
    random = np.random.default_rng(_KEY)
    by_chance = max(
        max(_scores(space, compared, random.permutation(values).tolist()).values()) for _ in range(_SHUFFLES)
    )
    return [name for name, score in found.items() if score > by_chance]


def _scores(space: SearchSpace, compared: Sequence[TrialView], values: Sequence[float]) -> dict[str, float]:
    """By parameter that varied; nothing before there are enough trials."""
    constant = set(unexplored(space, compared))
    if len(compared) < FEWEST_TRIALS or constant == set(space.dimensions):
        return {}
    study = optuna.create_study(storage=optuna.storages.InMemoryStorage())
    study.add_trials([_finished(space, trial, value, constant) for trial, value in zip(compared, values, strict=True)])
    share = min(_LARGEST_SHARE_OF_BEST, max(_SMALLEST_SHARE_OF_BEST, _FEWEST_BEST / len(compared)))
    return PedAnovaImportanceEvaluator(target_quantile=share).evaluate(study)


def unexplored(space: SearchSpace, compared: Sequence[TrialView]) -> list[str]:
    """Parameters of the space that have the same value in all of these trials that use them, in the space's order."""
    return [
        name
        for name in space.dimensions
        if len({trial.sampled[name] for trial in compared if name in trial.sampled}) < 2
    ]


def edges(space: SearchSpace, trials: Sequence[TrialView], ladder: Sequence[int]) -> list[Edge]:
    """Parameters whose best values lie at an end of a range that the study could widen, in the space's order."""
    known = ranked(trials, ladder)
    return [] if len(known) < FEWEST_TRIALS else edges_among(space, [trial for trial, _ in known])


def edges_among(space: SearchSpace, best_first: Sequence[TrialView]) -> list[Edge]:
    """The same from the best trials of at least FEWEST_TRIALS, in the order of `ranked`."""
    found = (_edge(space, name, space.forms[name], best_first) for name in space.dimensions)
    return [edge for edge in found if edge is not None]


def _edge(space: SearchSpace, name: str, form: object, best_first: Sequence[TrialView]) -> Edge | None:
    if not isinstance(form, FloatRange | IntRange | NumberChoices) or form.levels() == 1:
        return None
    values = [trial.sampled[name] for trial in best_first if name in trial.sampled]
    levels = form.levels()
    depth = _EDGE if levels is None or levels > _FEW_LEVELS else 1 / levels
    wanted = max(_FEWEST_AT_EDGE, math.ceil(math.log(_BY_CHANCE) / math.log(depth)))
    if len(values) < 2 * wanted:
        return None
    shares = [form.share(value) for value in values[:wanted]]
    side: Side = "upper" if shares[0] > _MIDDLE else "lower"
    if not all(share >= 1 - depth if side == "upper" else share <= depth for share in shares):
        return None
    change = next((change for change in _wider(form, side) if _is_accepted(space, name, change)), None)
    if change is None:
        return None
    low, high = form.extremes()
    return Edge(
        parameter=name,
        side=side,
        best=float(values[0]),
        low=low,
        high=high,
        trials=wanted,
        change=change,
    )


def _wider(form: FloatRange | IntRange | NumberChoices, side: Side) -> Iterator[dict[str, Any]]:
    """Changes that would widen the range on this side, the one to try first, first."""
    if isinstance(form, NumberChoices):
        yield from _more_choices(form.values, side)
        return
    key, end = ("high", form.high) if side == "upper" else ("low", form.low)
    sign = 1 if side == "upper" else -1
    if form.log:
        factor = _LOG_FACTOR if isinstance(form, FloatRange) else _LOG_FACTOR_WHOLE
        value = end * factor**sign
        yield {key: max(1, round(value)) if isinstance(form, IntRange) else float(f"{value:.2g}")}
        return
    step = form.step or 0
    width = (form.high - form.low) / 2
    moved = max(1, round(width / step)) * step if step else width
    value = end + sign * moved
    yield {key: value if isinstance(form, IntRange) else float(f"{value:.6g}")}
    if side == "lower" and end > 0:
        yield {key: 0 if isinstance(form, IntRange) else 0.0}


def _more_choices(values: Sequence[float], side: Side) -> Iterator[dict[str, Any]]:
    ends = values if side == "upper" else values[::-1]
    if len(ends) < 2:
        return
    last, before = ends[-1], ends[-2]
    grows = before != 0 and last / before > 0 and not 2 / 3 < last / before < 3 / 2
    following: float = last * last / before if grows else last + (last - before)
    whole = all(isinstance(value, int) for value in values)
    if whole and following != int(following):
        return
    new = int(following) if whole else float(f"{following:.6g}")
    yield {"choices": [*values, new] if side == "upper" else [new, *values]}


def _is_accepted(space: SearchSpace, name: str, change: Mapping[str, Any]) -> bool:
    try:
        space.extend({name: change})
    except InvalidSpec:
        return False
    return True


def _finished(space: SearchSpace, trial: TrialView, value: float, without: Collection[str]) -> FrozenTrial:
    forms = {name: space.dimension(name) for name in trial.sampled if name not in without}
    return create_trial(
        state=TrialState.COMPLETE,
        value=value,
        params={name: form.position(trial.sampled[name]) for name, form in forms.items()},
        distributions={name: form.positions() for name, form in forms.items()},
    )


def _finite(trial: TrialView) -> bool:
    return bool(trial.losses) and all(math.isfinite(loss) for loss in trial.losses.values())
