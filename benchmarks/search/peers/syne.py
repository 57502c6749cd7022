"""Syne Tune's schedulers, told of every trial and every result as its tuner tells them.

Its version has no scheduler that resumes trials: ASHA and BOHB stop what is not among the best third of a rung.
"""

import logging
import random
import warnings
from collections.abc import Callable
from datetime import datetime

import numpy as np
from syne_tune.backend.trial_status import Trial as SyneTrial
from syne_tune.config_space import uniform
from syne_tune.optimizer.baselines import ASHA, BOHB
from syne_tune.optimizer.scheduler import SchedulerDecision

from benchmarks.search.simulation import Resume, Start, Trial
from benchmarks.search.tables import Array, Table

FIRST_RUNG = 0.06
LONG_AGO = datetime(2000, 1, 1)

logging.getLogger("syne_tune").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", category=FutureWarning)


class SyneTune:
    """A stopped trial never resumes. A trial carries the coordinates of the row that it snapped to."""

    evaluates_always = True

    def __init__(self, table: Table, seed: int, scheduler: type[ASHA] | type[BOHB]) -> None:
        # Some of its draws come from the global generators.
        random.seed(seed)
        np.random.seed(seed)
        self._fidelities = table.fidelities
        self._names = [f"x{index}" for index in range(table.dimensions)]
        self._scheduler = scheduler(
            {name: uniform(0, 1) for name in self._names},
            metric="loss",
            time_attr="fidelity",
            max_t=table.fidelities,
            grace_period=max(1, round(FIRST_RUNG * table.fidelities)),
            random_seed=seed,
        )
        self._trials: list[SyneTrial] = []

    def next(self) -> Start | Resume | None:
        """Always a new trial."""
        config = self._scheduler.suggest().config
        return Start(np.array([config[name] for name in self._names]), self._fidelities)

    def started(self, trial: Trial, point: Array) -> None:
        """Add the trial as the row that it is."""
        config = dict(zip(self._names, map(float, point), strict=True))
        self._trials.append(SyneTrial(trial.number, config, LONG_AGO))
        self._scheduler.on_trial_add(self._trials[-1])

    def report(self, trial: Trial, loss: float, seconds: float) -> bool:
        """The scheduler decides at every fidelity."""
        told, result = self._trials[trial.number], {"loss": loss, "fidelity": trial.seen}
        if trial.seen == self._fidelities:
            self._scheduler.on_trial_complete(told, result)
            return False
        if self._scheduler.on_trial_result(told, result) == SchedulerDecision.STOP:
            self._scheduler.on_trial_remove(told)
            return False
        return True


STRATEGIES: dict[str, Callable[[Table, int, int], SyneTune]] = {
    "syne_asha": lambda table, _workers, seed: SyneTune(table, seed, ASHA),
    "syne_bohb": lambda table, _workers, seed: SyneTune(table, seed, BOHB),
}
