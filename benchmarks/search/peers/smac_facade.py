"""SMAC's multi-fidelity facade (Hyperband and a random forest) by ask and tell.

When it asks for a configuration at a higher budget, the trial resumes where it paused; SMAC itself would train it anew
unless the user's function keeps checkpoints, so this is generous. It cannot be told that a configuration became another
one: its brackets know configurations by their values. It therefore believes in the point that it proposed.
"""

import logging
from collections.abc import Callable
from tempfile import TemporaryDirectory

import numpy as np
from ConfigSpace import Configuration, ConfigurationSpace, Float
from smac import MultiFidelityFacade, Scenario
from smac.runhistory.dataclasses import TrialInfo, TrialValue

from benchmarks.search.simulation import Resume, Start, Trial
from benchmarks.search.tables import Array, Table

FIRST_RUNG = 0.06
MORE_THAN_ANY_BUDGET = 100_000


class Smac:
    """A trial pauses at its budget."""

    evaluates_always = False

    def __init__(self, table: Table, workers: int, seed: int) -> None:
        self._names = [f"x{index}" for index in range(table.dimensions)]
        space = ConfigurationSpace(seed=seed)
        space.add([Float(name, (0, 1)) for name in self._names])
        self._folder = TemporaryDirectory()
        scenario = Scenario(
            space,
            deterministic=True,
            n_trials=MORE_THAN_ANY_BUDGET,
            min_budget=max(1, round(FIRST_RUNG * table.fidelities)),
            max_budget=table.fidelities,
            seed=seed,
            output_directory=self._folder.name,
        )
        self._facade = MultiFidelityFacade(
            scenario, lambda config, seed, budget: 0.0, overwrite=True, logging_level=logging.ERROR
        )
        self._known: dict[Configuration, Trial] = {}
        self._tasks: dict[int, TrialInfo] = {}
        self._asked: TrialInfo | None = None

    def next(self) -> Start | Resume | None:
        """A new configuration, or a known one at a higher budget."""
        info = self._facade.ask()
        until = round(info.budget)
        trial = self._known.get(info.config)
        if trial is not None:
            self._tasks[trial.number] = info
            return Resume(trial, until)
        self._asked = info
        return Start(np.array([info.config[name] for name in self._names]), until)

    def started(self, trial: Trial, point: Array) -> None:
        """Remember which trial the configuration is."""
        assert self._asked is not None
        self._known[self._asked.config] = trial
        self._tasks[trial.number] = self._asked

    def report(self, trial: Trial, loss: float, seconds: float) -> bool:
        """Told at the budget that was asked for."""
        self._facade.tell(self._tasks.pop(trial.number), TrialValue(cost=loss, time=seconds), save=False)
        return False


STRATEGIES: dict[str, Callable[[Table, int, int], Smac]] = {"smac_multi_fidelity": Smac}
