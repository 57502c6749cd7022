"""Ray Tune's ASHA scheduler with its Optuna search, called in the order in which its controller calls them.

No cluster is started: the scheduler needs of a trial only its id and of the controller nothing, so that its decisions
can be had in simulated time. It stops what is not among the best third of a rung; Ray Tune's ASHA cannot resume.
"""

import logging
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import optuna
from optuna.distributions import FloatDistribution
from ray.tune.result import TRAINING_ITERATION
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch

from benchmarks.search.simulation import Resume, Start, Trial
from benchmarks.search.tables import Array, Table

FIRST_RUNG = 0.06
REDUCTION_FACTOR = 3
UNIT = FloatDistribution(0, 1)

optuna.logging.set_verbosity(optuna.logging.ERROR)
logging.getLogger("ray").setLevel(logging.ERROR)


class RayTune:
    """A stopped trial counts for the search with its last loss, as the controller tells it."""

    evaluates_always = True

    def __init__(self, table: Table, seed: int) -> None:
        self._fidelities = table.fidelities
        self._space = {f"x{index}": UNIT for index in range(table.dimensions)}
        self._search = OptunaSearch(dict(self._space), metric="loss", mode="min", seed=seed)
        self._scheduler = ASHAScheduler(
            metric="loss",
            mode="min",
            max_t=table.fidelities,
            grace_period=max(1, round(FIRST_RUNG * table.fidelities)),
            reduction_factor=REDUCTION_FACTOR,
        )
        self._count = 0

    def next(self) -> Start | Resume | None:
        """Always a new trial."""
        config = self._search.suggest(str(self._count))
        self._count += 1
        return Start(np.array([config[name] for name in self._space]), self._fidelities)

    def started(self, trial: Trial, point: Array) -> None:
        """Write the row's coordinates over the ones that were proposed; there is no public way to do it."""
        number = self._search._ot_trials[str(trial.number)]._trial_id
        for name, value in zip(self._space, point, strict=True):
            self._search._ot_study._storage.set_trial_param(number, name, float(value), UNIT)
        self._scheduler.on_trial_add(None, SimpleNamespace(trial_id=str(trial.number)))

    def report(self, trial: Trial, loss: float, seconds: float) -> bool:
        """The scheduler decides at every fidelity, the search hears of it."""
        told = SimpleNamespace(trial_id=str(trial.number))
        result = {"loss": loss, TRAINING_ITERATION: trial.seen}
        if self._scheduler.on_trial_result(None, told, result) == TrialScheduler.STOP:
            self._scheduler.on_trial_complete(None, told, result)
            self._search.on_trial_complete(told.trial_id, result)
            return False
        self._search.on_trial_result(told.trial_id, result)
        return True


STRATEGIES: dict[str, Callable[[Table, int, int], RayTune]] = {
    "ray_asha_optuna": lambda table, _workers, seed: RayTune(table, seed),
}
