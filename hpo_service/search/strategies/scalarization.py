"""Several objectives as one number a rung, anew for every decision (ParEGO: Knowles 2006).

A decision draws weights, and every loss of the view gives way to the augmented Tchebycheff value of the trial's
objectives with these weights. Strategies and samplers then search as they do for a loss, each decision for another
point of the front. What ranks trials at a rung sees the non-dominated ones first, in the order of that value.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hpo_service.search.pareto import costs, nondomination_ranks, values
from hpo_service.search.strategies.base import Advance, Numbers, Start, Step, StudyView, TrialView
from hpo_service.spec.objectives import Objective

Array = NDArray[np.float64]

_AUGMENTATION = 0.05
_KEY = 0x0B1EC7
_SMALLEST_LOSS = 1e-6
_TOGETHER = ("loss", "improvement", "predicted_sd")


@dataclass(frozen=True)
class Scalarization:
    """Of one view with several objectives, for one decision."""

    view: StudyView

    @cached_property
    def weights(self) -> Array:
        """[objectives], drawn evenly from all that sum to 1."""
        random = np.random.default_rng([self.view.seed, self.view.decision_number, _KEY])
        return random.dirichlet(np.ones(len(self._objectives)))

    def searched(self, strategy: str) -> StudyView:
        """What a strategy sees: freeze-thaw models curves, the others rank trials."""
        return self.curves() if strategy == "freeze_thaw" else self.ranks()

    def curves(self) -> StudyView:
        """Every loss replaced by the value as a curve: of the loss's own spread, falling as the loss falls."""
        return self._with(
            {number: np.exp(self._ideal + self._spread * value) for number, value in self._values.items()}
        )

    def ranks(self) -> StudyView:
        """Every loss replaced by its rank of non-domination at its rung, plus the value as a fraction."""
        found = {number: np.zeros(len(value)) for number, value in self._values.items()}
        for rung in {rung for trial in self._trials for rung in trial.losses}:
            there = [trial for trial in self._trials if rung in trial.losses]
            rows = [values(self._objectives, trial.losses[rung], trial.measures) for trial in there]
            ranks = nondomination_ranks(costs(self._objectives, rows))
            for trial, rank in zip(there, ranks, strict=True):
                place = list(trial.losses).index(rung)
                value = self._values[trial.number][place]
                found[trial.number][place] = 1 + rank + value / (1 + value)
        return self._with(found)

    def told(self, step: Step) -> Step:
        """The step with the weights among its numbers; its figures are about all objectives together."""
        if not isinstance(step, Advance | Start):
            return step
        weights = {f"weight_{one.name}": float(w) for one, w in zip(self._objectives, self.weights, strict=True)}
        numbers: Numbers = {_renamed(key): value for key, value in step.numbers.items()} | weights
        weighed = ", ".join(f"{one.name} {w:.2f}" for one, w in zip(self._objectives, self.weights, strict=True))
        return replace(step, numbers=numbers, reason=f"{step.reason} (objectives weighed {weighed})")

    @property
    def _objectives(self) -> Sequence[Objective]:
        return self.view.objectives

    @cached_property
    def _trials(self) -> list[TrialView]:
        return [trial for trial in self.view.trials if trial.losses and np.isfinite(list(trial.losses.values())).all()]

    @cached_property
    def _ideal(self) -> float:
        return min(float(_logs(trial).min()) for trial in self._trials)

    @cached_property
    def _spread(self) -> float:
        """How far the better half of the trials are apart in log loss, at the rung where they differ most."""
        by_rung: dict[int, list[float]] = {}
        for trial in self._trials:
            for rung, log in zip(trial.losses, _logs(trial), strict=True):
                by_rung.setdefault(rung, []).append(float(log))
        return max(1e-3, *(float(np.median(logs)) - min(logs) for logs in by_rung.values()))

    @cached_property
    def _values(self) -> dict[int, Array]:
        """By trial number, in the order of the trial's losses."""
        if not self._trials:
            return {}
        others = self._others()
        found = {}
        for trial, other in zip(self._trials, others, strict=True):
            loss = (_logs(trial) - self._ideal) / self._spread
            weighed = np.column_stack([loss, np.tile(other, (len(loss), 1))]) * self.weights
            found[trial.number] = weighed.max(axis=1) + _AUGMENTATION * weighed.sum(axis=1)
        return found

    def _others(self) -> Array:
        """Objectives beside the loss [trials, objectives - 1], from 0 (the best known) to 1 (the worst)."""
        rows = [values(self._objectives, 0.0, trial.measures)[1:] for trial in self._trials]
        table = costs(self._objectives[1:], rows)
        scaled = np.ones_like(table)
        for column, known in enumerate(table.T):
            finite = np.isfinite(known)
            amounts = np.abs(known[finite])
            if len(amounts) and amounts.min() > 0:
                known[finite] = np.sign(known[finite]) * np.log(amounts)
            low, high = (known[finite].min(), known[finite].max()) if finite.any() else (0.0, 0.0)
            scaled[finite, column] = (known[finite] - low) / (high - low) if high > low else 0.0
        return scaled

    def _with(self, losses: dict[int, Array]) -> StudyView:
        trials = tuple(
            replace(
                trial,
                losses=dict(zip(trial.losses, losses[trial.number].tolist(), strict=True)),
                fold_losses={},
            )
            if trial.number in losses
            else trial
            for trial in self.view.trials
        )
        return replace(self.view, trials=trials)


def _logs(trial: TrialView) -> Array:
    return np.log(np.maximum(list(trial.losses.values()), _SMALLEST_LOSS))


def _renamed(key: str) -> str:
    """A figure about a loss is about all objectives together here."""
    return f"together_{key}" if any(part in key for part in _TOGETHER) else key
