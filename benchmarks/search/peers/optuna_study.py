"""Optuna's samplers and pruners by ask and tell. A pruned trial never resumes: Optuna cannot.

The sampler learns the coordinates of the row that a trial snapped to. Optuna has no public way to change a parameter of
a trial that runs, its storage has one.
"""

import warnings
from collections.abc import Callable

import numpy as np
import optuna
from optuna.distributions import FloatDistribution
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, GPSampler, TPESampler
from optuna.trial import TrialState

from benchmarks.search.simulation import Resume, Start, Trial
from benchmarks.search.tables import Array, Table

FIRST_RUNG = 0.06
REDUCTION_FACTOR = 3
UNIT = FloatDistribution(0, 1)

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


class OptunaStudy:
    """Every trial goes to its end unless it is pruned; it is evaluated at every fidelity."""

    evaluates_always = True

    def __init__(
        self, table: Table, seed: int, sampler: BaseSampler, pruner: BasePruner, max_trials: int | None = None
    ) -> None:
        self._fidelities, self._max_trials = table.fidelities, max_trials
        self._space = {f"x{index}": UNIT for index in range(table.dimensions)}
        # Hyperband draws the bracket of a trial from the study's name.
        self._study = optuna.create_study(sampler=sampler, pruner=pruner, study_name=f"seed {seed}")
        self._trials: list[optuna.Trial] = []

    def next(self) -> Start | Resume | None:
        """A new trial while there may be more."""
        if self._max_trials is not None and len(self._trials) >= self._max_trials:
            return None
        trial = self._study.ask(dict(self._space))
        self._trials.append(trial)
        return Start(np.array([trial.params[name] for name in self._space]), self._fidelities)

    def started(self, trial: Trial, point: Array) -> None:
        """Write the row's coordinates over the ones that were proposed."""
        number = self._trials[trial.number]._trial_id
        for name, value in zip(self._space, point, strict=True):
            self._study._storage.set_trial_param(number, name, float(value), UNIT)

    def report(self, trial: Trial, loss: float, seconds: float) -> bool:
        """The pruner decides at every fidelity."""
        asked = self._trials[trial.number]
        asked.report(loss, trial.seen)
        if trial.seen == self._fidelities:
            self._study.tell(asked, loss)
            return False
        if asked.should_prune():
            self._study.tell(asked, state=TrialState.PRUNED)
            return False
        return True


def _first_rung(table: Table) -> int:
    return max(1, round(FIRST_RUNG * table.fidelities))


def _article(table: Table, workers: int, seed: int) -> OptunaStudy:
    return OptunaStudy(table, seed, TPESampler(seed=seed), MedianPruner(n_startup_trials=5), max_trials=50)


def _halving(table: Table, workers: int, seed: int) -> OptunaStudy:
    pruner = SuccessiveHalvingPruner(min_resource=_first_rung(table), reduction_factor=REDUCTION_FACTOR)
    return OptunaStudy(table, seed, TPESampler(seed=seed), pruner)


def _hyperband(table: Table, workers: int, seed: int) -> OptunaStudy:
    pruner = HyperbandPruner(
        min_resource=_first_rung(table), max_resource=table.fidelities, reduction_factor=REDUCTION_FACTOR
    )
    return OptunaStudy(table, seed, TPESampler(seed=seed), pruner)


def _gaussian_process(table: Table, workers: int, seed: int) -> OptunaStudy:
    return OptunaStudy(table, seed, GPSampler(seed=seed, deterministic_objective=True), NopPruner())


STRATEGIES: dict[str, Callable[[Table, int, int], OptunaStudy]] = {
    "article": _article,
    "optuna_tpe_halving": _halving,
    "optuna_tpe_hyperband": _hyperband,
    "optuna_gp": _gaussian_process,
}
