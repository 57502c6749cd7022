"""Samplers that would need a memory of their own, made anew for every proposal."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import qmc

from hpo_service.search.samplers import SamplerName, propose_assignment
from hpo_service.search.samplers.evolution import evolved_names
from hpo_service.search.strategies.base import TrialView
from hpo_service.spec.space import SearchSpace
from tests.searching import space_of, view

SQUARE: dict[str, Any] = {"weight_decay": {"low": 0, "high": 1}, "lora_dropout": {"low": 0, "high": 0.9}}


def searched(space: SearchSpace, sampler: SamplerName, count: int, hold: int = 0) -> list[TrialView]:
    """A study of so many trials. The last `hold` are always still running: results come late."""
    trials: list[TrialView] = []
    for number in range(count):
        seen = [
            trial
            if trial.number < number - hold
            else TrialView(number=trial.number, standing="running", sampled=trial.sampled)
            for trial in trials
        ]
        found, _ = propose_assignment(space, view(*seen, decision_number=number, max_trials=count), sampler, None)
        parameters = found.parameters
        loss = (parameters.weight_decay - 0.3) ** 2 + (parameters.lora_dropout / 0.9 - 0.8) ** 2
        trials.append(
            TrialView(
                number=number,
                standing="complete",
                sampled=found.sampled,
                parameters=parameters.model_dump(),
                losses={10: loss},
                ladder=(10,),
            )
        )
    return trials


def points(trials: list[TrialView]) -> Any:
    return np.array([[trial.sampled["weight_decay"], trial.sampled["lora_dropout"] / 0.9] for trial in trials])


def test_qmc_is_as_even_as_one_sobol_sequence() -> None:
    found = points(searched(space_of(**SQUARE), "qmc", 64))
    drawn = points(searched(space_of(**SQUARE), "random", 64))
    assert qmc.discrepancy(found) < 0.3 * qmc.discrepancy(drawn)
    cells = len(np.unique(np.floor(found * 8), axis=0))
    assert cells >= 62, "one point in each of 8 x 8 cells, but for those that are near an earlier one"


def test_qmc_leaves_out_no_point_that_can_be_trained() -> None:
    """Half of the square is forbidden; what is proposed there are the same points as without that.

    No two of these first points are near each other.
    """
    allowed = points(searched(space_of("weight_decay < 0.5", **SQUARE), "qmc", 32))
    free = points(searched(space_of(**SQUARE), "qmc", 64))
    assert allowed.tolist() == [point for point in free.tolist() if point[0] < 0.5][:32]


@pytest.mark.parametrize("sampler", ["cmaes", "nsgaii"])
@pytest.mark.parametrize("hold", [0, 3])
def test_evolution_goes_on_over_generations(sampler: SamplerName, hold: int) -> None:
    """Also while the newest trials have not reported."""
    trials = searched(space_of(**SQUARE), sampler, 72, hold)
    losses = [trial.losses[10] for trial in trials]
    assert np.median(losses[-24:]) < 0.5 * np.median(losses[:12])


def test_cma_es_moves_what_is_numeric_and_always_used() -> None:
    space = space_of(
        learning_rate={"low": 1e-5, "high": 1e-2, "log": True},
        lora_r={"choices": [8, 16]},
        lr_scheduler={"choices": ["cosine", "constant"]},
        warmup_ratio={"low": 0, "high": 0.1, "when": {"lr_scheduler": ["cosine"]}},
        effective_batch={"choices": [8]},
    )
    assert set(evolved_names(space)) == {"learning_rate", "lora_r"}


def test_without_a_numeric_parameter_cma_es_draws() -> None:
    space = space_of(lr_scheduler={"choices": ["cosine", "constant", "linear"]})
    found = {
        propose_assignment(space, view(decision_number=number), "cmaes", None)[0].parameters.lr_scheduler
        for number in range(20)
    }
    assert len(found) == 3


def test_a_gaussian_process_learns_where_nothing_can_be_trained() -> None:
    """Its optimum lies in the forbidden part; what was refused does not make it repeat itself until chance helps."""
    space = space_of("weight_decay > 0.5", **SQUARE)
    trials = searched(space, "random", 16)
    found, refused = propose_assignment(space, view(*trials), "gp", None)
    assert found.parameters.weight_decay < 0.75
    assert refused < 5
