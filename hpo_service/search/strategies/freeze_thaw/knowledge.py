"""What the committed results of a study say: the model of its curves, what slices cost, what can be trained."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import compress
from typing import Any

import numpy as np

from hpo_service.search.strategies.base import StudyView, TrialView
from hpo_service.search.strategies.freeze_thaw import curves
from hpo_service.search.strategies.freeze_thaw.acquisition import CostModel, Feasibility, MemoryLimit
from hpo_service.search.strategies.freeze_thaw.cube import Cube
from hpo_service.search.strategies.freeze_thaw.curves import Curves
from hpo_service.search.strategies.freeze_thaw.gaussian_process import Array, Indices, Kernel, Posterior, Sites, fit
from hpo_service.search.strategies.freeze_thaw.past import Past, Trend, trend
from hpo_service.search.strategies.freeze_thaw.settings import FreezeThawSettings
from trainer.spec import Outcome

_FIRST_NEW = 10**6


@dataclass(frozen=True)
class Knowledge:
    """Read from one view. `measured` are the trials with a loss; arrays called [measured] follow their order."""

    cube: Cube
    view: StudyView
    settings: FreezeThawSettings
    random: np.random.Generator
    past: Past | None = None

    @cached_property
    def measured(self) -> tuple[TrialView, ...]:
        """Trials with a finite loss, by number; a trial that failed later taught something before."""
        return tuple(trial for trial in self.view.trials if _finite(trial))

    @cached_property
    def curves(self) -> Curves:
        """Their losses."""
        return curves.read(self.measured, self.view.ladder, self.settings.squash)

    @cached_property
    def points(self) -> Array:
        """[measured, dimensions]."""
        return self.points_of(self.measured)

    @cached_property
    def features(self) -> Array:
        """[measured, features]."""
        return self.cube.features(self.points)

    def points_of(self, trials: tuple[TrialView, ...]) -> Array:
        """[trials, dimensions]."""
        return np.array([self.cube.locate(trial.sampled) for trial in trials]).reshape(-1, len(self.cube.names))

    @cached_property
    def kernel(self) -> Kernel:
        """Remembered from an earlier decision, or fitted anew when the study has grown."""
        remembered = self._remembered
        if remembered is not None and len(self.measured) < self.settings.refit_growth * self.view.memory["trials"]:
            return remembered
        sites, values, noise = self._observed
        return fit(sites, values, noise, self.cube.groups, None if remembered is None else remembered.theta)

    @property
    def memory(self) -> Mapping[str, Any] | None:
        """What is to be remembered with this decision; None if nothing new was learnt."""
        if self.kernel is self._remembered:
            return None
        theta = [round(float(value), 6) for value in self.kernel.theta]
        learnt = {"theta": theta, "trials": len(self.measured), "layout": self.cube.layout}
        return {**learnt, "trust": self._trust} if self._trust else learnt

    @property
    def _trust(self) -> Mapping[str, float]:
        """Weight of every earlier study; of a decision that does without the past, what was remembered."""
        if not self.past:
            remembered: Mapping[str, float] = self.view.memory.get("trust", {})
            return remembered
        weights = np.zeros(len(self.past.studies)) if self.trend is None else self.trend.weights
        return {study: round(float(weight), 4) for study, weight in zip(self.past.studies, weights, strict=True)}

    @cached_property
    def _remembered(self) -> Kernel | None:
        memory = self.view.memory
        if memory.get("layout") != self.cube.layout:
            return None
        return Kernel(np.array(memory["theta"], dtype=np.float64), self.cube.groups)

    @cached_property
    def _observed(self) -> tuple[Sites, Array, Array]:
        known = self.curves
        chosen = known.kept(self.settings.most_observations, self.random)
        rows = known.rows[chosen]
        numbers = np.array([trial.number for trial in self.measured], dtype=np.intp)
        sites = Sites(
            features=self.features[rows], times=np.log(known.ladder[known.rungs[chosen]]), trials=numbers[rows]
        )
        values = known.values[chosen]
        if self.trend is not None:
            values = values - self.trend.at(self.features)[rows]
        return sites, values, known.noise[chosen]

    @cached_property
    def trend(self) -> Trend | None:
        """What a trusted past says of any configuration, in standardized values: the mean that the process starts from.

        It is fitted to the last value of every trial.
        """
        if not self.past or not self.measured:
            return None
        known = self.curves
        last = np.zeros(len(self.measured), dtype=np.intp)
        last[known.rows] = np.arange(len(known.rows))
        return trend(self.past, self.features, known.values[last])

    @cached_property
    def posterior(self) -> Posterior:
        """Conditioned on the observations and, at its own mean, on what is running."""
        posterior = Posterior(self.kernel, *self._observed)
        running = tuple(
            trial for trial in self.view.standing("running") if trial.running_to is not None and trial.ladder
        )
        if not running:
            return posterior
        ends = np.array([trial.running_to for trial in running], dtype=np.float64)
        numbers = np.array([trial.number for trial in running], dtype=np.intp)
        features = self.cube.features(self.points_of(running))
        return posterior.believing(Sites(features=features, times=np.log(ends), trials=numbers))

    def ends(self, trials: tuple[TrialView, ...]) -> Array:
        """Examples at the end of each trial, [trials]."""
        return np.array([trial.ladder[-1] for trial in trials], dtype=np.float64)

    def final(self, features: Array, ends: Array, numbers: Indices) -> tuple[Array, Array]:
        """Predicted log loss at the end: mean and standard deviation, [n] each."""
        mean, deviation = self.posterior.predict(Sites(features=features, times=np.log(ends), trials=numbers))
        if self.trend is not None:
            mean = mean + self.trend.at(features)
        return self.curves.log_loss(mean, ends), self.curves.scale * deviation

    def final_of_new(self, features: Array, ends: Array) -> tuple[Array, Array]:
        """The same of configurations that no trial has."""
        return self.final(features, ends, np.arange(_FIRST_NEW, _FIRST_NEW + len(features)))

    @cached_property
    def final_of_measured(self) -> tuple[Array, Array]:
        """The same of the trials that were measured."""
        numbers = np.array([trial.number for trial in self.measured], dtype=np.intp)
        return self.final(self.features, self.ends(self.measured), numbers)

    @cached_property
    def ranked(self) -> Array:
        """Points [measured, dimensions], best predicted end first; unused coordinates are drawn."""
        points = self.points[np.argsort(self.final_of_measured[0], kind="stable")]
        return np.where(np.isnan(points), self.random.random(points.shape), points)

    def leading(self, count: int) -> list[int]:
        """The numbers of so many trials with the best predicted ends."""
        if not self.measured:
            return []
        order = np.argsort(self.final_of_measured[0], kind="stable")[:count]
        return [self.measured[row].number for row in order]

    @cached_property
    def cost(self) -> CostModel:
        """Of an example."""
        known = [(row, trial.cost_per_example) for row, trial in enumerate(self.measured) if trial.cost_per_example]
        rows = np.array([row for row, _ in known], dtype=np.intp)
        return CostModel(self.features[rows], np.array([cost for _, cost in known], dtype=np.float64))

    @cached_property
    def feasibility(self) -> Feasibility:
        """Whether a configuration can be trained."""
        failed = tuple(
            trial for trial in self.view.standing("failed") if trial.outcome and trial.outcome.about_the_trial
        )
        numbers = {trial.number for trial in failed}
        sound = [trial.number not in numbers for trial in self.measured]
        features = np.concatenate([self.cube.features(self.points_of(failed)), self.features[sound]])
        trials = (*failed, *compress(self.measured, sound))
        sized = [row for row, trial in enumerate(trials) if trial.memory_bytes]
        peaks = np.array([trials[row].memory_bytes for row in sized], dtype=np.float64)
        burst = np.array([trials[row].outcome is Outcome.OOM for row in sized], dtype=np.bool_)
        memory = MemoryLimit(features[sized], peaks, burst)
        return Feasibility(features, np.repeat([1.0, 0.0], [len(failed), len(features) - len(failed)]), memory)


def _finite(trial: TrialView) -> bool:
    return bool(trial.losses) and all(np.isfinite(loss) for loss in trial.losses.values())
