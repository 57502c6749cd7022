"""What every strategy keeps to, and every sampler under asha: one suite on simulated studies.

`Simulation` itself checks each decision: the point lies in the space, can be trained and is near no trial, the trial is
paused or waiting, the rung is on its ladder and ahead of it, and there is an end.
"""

import math
from dataclasses import dataclass, replace
from random import Random
from typing import Any, get_args

import pytest

from hpo_service.search.leader import ahead_of
from hpo_service.search.strategies import build
from hpo_service.search.strategies.base import TrialView
from hpo_service.spec import PastStudy, ResolvedStudy, SamplerName
from hpo_service.spec.study import StrategyName
from tests.searching import RATE, Simulation, resolved
from trainer.spec import Outcome

MIXED: dict[str, Any] = {
    "learning_rate": RATE,
    "lora_r": {"choices": [4, 8, 16, 32]},
    "lora_alpha": {"expr": "2 * lora_r"},
    "effective_batch": {"low": 4, "high": 32, "log": True},
    "lr_scheduler": {"choices": ["cosine", "constant"]},
    "warmup_ratio": {"low": 0, "high": 0.1, "when": {"lr_scheduler": ["cosine"]}},
    "epochs": {"choices": [0.5, 1, 2]},
}
CONSTRAINTS = ["lora_r <= 16 or learning_rate < 1e-3"]
BASELINE = {"learning_rate": 1e-4, "lora_r": 8, "effective_batch": 16, "lr_scheduler": "constant", "epochs": 1}


@dataclass(frozen=True)
class Case:
    strategy: StrategyName
    sampler: SamplerName = "tpe"

    def __str__(self) -> str:
        return self.strategy if self.sampler == "tpe" else f"{self.strategy}-{self.sampler}"

    @property
    def longest(self) -> int:
        """Trials of a study: a Gaussian process of Optuna takes half a second for one, from the ninth on."""
        return 11 if self.sampler == "gp" else 20

    def study(self, max_trials: int, **more: Any) -> ResolvedStudy:
        search: dict[str, Any] = {"strategy": self.strategy, "seed": 5}
        if self.strategy != "freeze_thaw":
            search["sampler"] = self.sampler
        sections: dict[str, Any] = {"space": MIXED, "constraints": CONSTRAINTS, "baseline": BASELINE, **more}
        return resolved(search=search, budget={"max_trials": max_trials}, **sections)


CASES = [
    *(Case(strategy) for strategy in get_args(StrategyName)),
    *(Case("asha", sampler) for sampler in get_args(SamplerName) if sampler != "tpe"),
]
every_case = pytest.mark.parametrize("case", CASES, ids=str)


def uneven(number: int) -> float:
    """Slow and fast trials, so that results come out of turn."""
    return Random(number).uniform(0.1, 5)


def crossing(number: int, until: int) -> float:
    """Curves that cross: what is good at first is often bad later."""
    return 0.3 * math.sin(number * 1.7 + 3.0 * math.log10(until))


def trouble(number: int, until: int, attempt: int) -> Outcome | None:
    """All that a slice can meet: a tenth each fails, is a NaN, is lost, or is stopped before its loss."""
    chance = Random(f"{number} {until} {attempt}").random()
    mishaps = {0: Outcome.OOM, 1: Outcome.DIVERGED, 2: None, 3: Outcome.LOST, 4: Outcome.PREEMPTED}
    return mishaps.get(int(chance * 10), Outcome.DONE) if number else Outcome.DONE


def complete(simulation: Simulation) -> list[TrialView]:
    return [trial for trial in simulation.trials if trial.standing == "complete" and not trial.baseline]


@every_case
@pytest.mark.parametrize("workers", [1, 4, 16])
def test_a_study_ends_with_the_baseline_and_a_searched_trial_complete(case: Case, workers: int) -> None:
    simulation = Simulation(case.study(case.longest), workers=workers, pace=uneven)
    simulation.run()
    assert len(simulation.trials) == case.longest
    assert simulation.trials[0].baseline
    assert simulation.trials[0].standing == "complete"
    assert complete(simulation)
    assert {trial.standing for trial in simulation.trials} <= {"complete", "paused", "pruned"}
    assert len({trial.ladder[-1] for trial in simulation.trials}) > 1


@every_case
def test_trouble_stops_no_study(case: Case) -> None:
    simulation = Simulation(case.study(case.longest), workers=4, pace=uneven, mishap=trouble)
    simulation.run()
    assert len(simulation.trials) == case.longest
    assert simulation.trials[0].standing == "complete"
    assert any(math.isfinite(trial.losses[trial.rung]) for trial in complete(simulation))
    assert {trial.standing for trial in simulation.trials} >= {"complete", "failed"}


@every_case
def test_a_study_in_which_everything_fails_ends(case: Case) -> None:
    simulation = Simulation(case.study(8), workers=4, fails=frozenset(range(1, 8)))
    end = simulation.run()
    assert end.reason == "none of 8 trials could be trained to its end"
    assert simulation.trials[0].standing == "complete"


def test_a_study_with_a_past_in_which_everything_fails_ends() -> None:
    study = Case("freeze_thaw").study(12, baseline=None)
    point = {name: value for name, value in BASELINE.items() if name != "epochs"} | {"epochs": 1}
    points = tuple(point | {"learning_rate": 10.0**-power} for power in (2, 3, 4, 5))
    past = PastStudy(study="earlier", similarity=1.0, examples=1000, points=points, losses=(4.0, 1.0, 2.0, 3.0))
    simulation = Simulation(study.model_copy(update={"past": (past,)}), workers=4, fails=frozenset(range(12)))
    assert simulation.run().reason == "none of 12 trials could be trained to its end"


@every_case
def test_it_is_deterministic_and_goes_on_from_what_is_committed(case: Case) -> None:
    """The second study is stopped at every decision and rebuilt from JSON."""
    kept = Simulation(case.study(case.longest), workers=4, pace=uneven, mishap=trouble)
    rebuilt = replace(kept, trials=[], reasons=[], attempts=kept.attempts.copy(), forgetful=True)
    kept.run()
    rebuilt.run()
    assert rebuilt.reasons == kept.reasons
    assert repr(rebuilt.trials) == repr(kept.trials)
    assert rebuilt.memory == kept.memory


@every_case
def test_another_seed_searches_elsewhere(case: Case) -> None:
    one = case.study(6)
    other = one.model_copy(update={"search": one.search.model_copy(update={"seed": 6})})
    found = [Simulation(study) for study in (one, other)]
    for simulation in found:
        simulation.run()
    assert found[0].trials[1].sampled != found[1].trials[1].sampled


@every_case
def test_enqueued_points_are_trained_as_they_are(case: Case) -> None:
    study = case.study(8, enqueue=[{"learning_rate": 2e-4, "lora_r": 4}, {"learning_rate": 2e-4, "lora_r": 4}])
    simulation = Simulation(study, workers=4)
    simulation.run()
    assert [trial.parameters["learning_rate"] for trial in simulation.trials[1:3]] == [2e-4, 2e-4]
    assert all(trial.losses for trial in simulation.trials)


@every_case
def test_a_study_without_a_baseline(case: Case) -> None:
    simulation = Simulation(case.study(6, baseline=None), workers=4)
    simulation.run()
    assert complete(simulation)


@every_case
def test_a_study_of_one_trial(case: Case) -> None:
    simulation = Simulation(case.study(1, baseline=None), workers=4)
    simulation.run()
    assert [trial.standing for trial in simulation.trials] == ["complete"]


@every_case
def test_space_and_budget_grow_while_it_runs(case: Case) -> None:
    def grow(simulation: Simulation) -> None:
        wider = {"learning_rate": {"high": 3e-2}, "lora_r": {"choices": [2, 4, 8, 16, 32, 64]}}
        simulation.adopt(simulation.study.extend(wider, {"max_trials": case.longest}))
        simulation.enqueue({"learning_rate": 2e-2, "lora_r": 2})

    simulation = Simulation(case.study(9), workers=4, pace=uneven, changes={7: grow})
    simulation.run()
    assert len(simulation.trials) == case.longest
    assert any(trial.parameters["learning_rate"] == 2e-2 for trial in simulation.trials)
    assert complete(simulation)


@every_case
def test_proposing_and_judging_change_nothing(case: Case) -> None:
    simulation = Simulation(case.study(6), workers=2)
    simulation.run()
    trials = [replace(trial, standing="paused", losses={60: 1.0 + trial.number}) for trial in simulation.trials]
    view = replace(simulation.view(), trials=tuple(trials), max_trials=12)
    before, strategy = repr(view), build(simulation.study)
    assert strategy.propose(view) == build(simulation.study).propose(view)
    assert strategy.judge(view, 3) == strategy.judge(view, 3)
    assert repr(view) == before


@every_case
@pytest.mark.parametrize("workers", [1, 4])
def test_no_paused_trial_is_left_ahead_of_the_best_complete_one(case: Case, workers: int) -> None:
    """Losses at early rungs mislead here, so that what a strategy sorts out early is often the best later."""
    simulation = Simulation(case.study(case.longest), workers=workers, pace=uneven, noise=crossing)
    end = simulation.run()
    best = min(complete(simulation), key=lambda trial: trial.losses[trial.rung])
    paused = [trial for trial in simulation.trials if trial.standing == "paused" and not trial.baseline]
    ahead = ahead_of(best.losses, [(trial.number, trial.losses) for trial in paused])
    finished = simulation.memory.get("finished_leaders", [])
    assert len(finished) <= 3
    assert ahead == [] or len(finished) == 3, end.reason
