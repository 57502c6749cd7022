"""No two trials are nearly the same, and an exhausted space ends the study: every strategy with every sampler."""

from dataclasses import dataclass
from itertools import combinations
from typing import Any, get_args

import pytest

from hpo_service.spec import SamplerName
from hpo_service.spec.study import StrategyName
from tests.searching import RATE, Simulation, distance, refined, resolved

#: few parameters, so that points drawn at random, and those where a sampler expects low losses, are often near
NARROW: dict[str, Any] = {
    "learning_rate": RATE,
    "lora_r": {"choices": [8, 16]},
    "lr_scheduler": {"choices": ["cosine", "constant"]},
    "warmup_ratio": {"low": 0, "high": 0.1, "when": {"lr_scheduler": ["cosine"]}},
}
NARROW_BASELINE = {"learning_rate": 3e-4, "lora_r": 8, "lr_scheduler": "constant"}
#: 3 x (1 + 2) points
FINITE: dict[str, Any] = {
    "lora_r": {"choices": [4, 8, 16]},
    "lr_scheduler": {"choices": ["cosine", "constant"]},
    "warmup_ratio": {"choices": [0.0, 0.1], "when": {"lr_scheduler": ["cosine"]}},
}


@dataclass(frozen=True)
class Case:
    strategy: StrategyName
    sampler: SamplerName | None

    def __str__(self) -> str:
        return f"{self.strategy}-{self.sampler}" if self.sampler else self.strategy

    def simulation(self, space: dict[str, Any], baseline: dict[str, Any], max_trials: int) -> Simulation:
        search = {"strategy": self.strategy, "seed": 4, **({"sampler": self.sampler} if self.sampler else {})}
        study = resolved(space=space, baseline=baseline, search=search, budget={"max_trials": max_trials})
        return Simulation(study, workers=2)


CASES = [
    Case("freeze_thaw", None),
    *(
        Case(strategy, sampler)
        for strategy in get_args(StrategyName)
        if strategy != "freeze_thaw"
        for sampler in get_args(SamplerName)
    ),
]
every_case = pytest.mark.parametrize("case", CASES, ids=str)


@every_case
def test_no_two_trials_are_nearly_the_same(case: Case) -> None:
    """A point of a Gaussian process of Optuna takes half a second from the ninth on."""
    simulation = case.simulation(NARROW, NARROW_BASELINE, 12 if case.sampler == "gp" else 30)
    simulation.run()
    assert len(simulation.trials) == (12 if case.sampler == "gp" else 30)
    for one, other in combinations(simulation.trials, 2):
        gap = distance(simulation.space, one.sampled, other.sampled)
        begun = next(reason for reason in simulation.reasons if reason.startswith(f"{other.number} to "))
        least = 0.005 if one.number in refined(begun) else 0.02
        assert gap > least - 1e-9, f"trials {one.number} and {other.number} are {gap:.4f} apart"


@every_case
def test_an_exhausted_space_ends_the_study_and_the_study_says_so(case: Case) -> None:
    simulation = case.simulation(FINITE, {"lora_r": 8, "lr_scheduler": "constant"}, 20)
    end = simulation.run()
    assert len({tuple(sorted(trial.sampled.items())) for trial in simulation.trials}) == 9
    assert len(simulation.trials) == 9
    assert end.reason.startswith("the space is exhausted: all 9 points of it were tried; all 9 trials are decided")
    assert any(trial.standing == "complete" and not trial.baseline for trial in simulation.trials)
