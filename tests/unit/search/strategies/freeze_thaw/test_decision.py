"""What a decision does at the edges: failures nearby, a space with nothing new left."""

import numpy as np
import pytest

from hpo_service.search.strategies.base import Advance, Start, StudyView, TrialStanding, TrialView
from hpo_service.search.strategies.freeze_thaw import FreezeThaw
from hpo_service.search.strategies.freeze_thaw.cube import Cube
from hpo_service.search.strategies.freeze_thaw.decision import Decision
from hpo_service.search.strategies.freeze_thaw.settings import FreezeThawSettings
from hpo_service.search.strategies.nearness import Exhausted
from hpo_service.spec.space import SearchSpace
from tests.searching import RATE, space_of
from trainer.spec import Outcome

LADDER = (10, 30, 100)
DRAWS = FreezeThawSettings(advance_share=1.0, advance_one_in=100, evolve_share=0.5, draw_share=0.5)
IMPROVEMENTS = FreezeThawSettings(advance_share=0.0, exploit_share=0.0)


def measured(number: int, sampled: dict[str, object], loss: float, standing: TrialStanding = "paused") -> TrialView:
    losses = {} if standing == "failed" else {10: loss}
    outcome = Outcome.DIVERGED if standing == "failed" else None
    return TrialView(number=number, standing=standing, sampled=sampled, losses=losses, ladder=LADDER, outcome=outcome)


def decision(space: SearchSpace, trials: list[TrialView], number: int, settings: FreezeThawSettings) -> Decision:
    return Decision(view_of(trials, number), Cube(space), settings, lambda points: np.full(len(points), 100.0))


def view_of(trials: list[TrialView], number: int) -> StudyView:
    return StudyView(seed=0, decision_number=number, max_trials=100, trials=tuple(trials), ladder=LADDER)


def test_children_and_even_draws_keep_away_from_what_failed() -> None:
    space = space_of(learning_rate=RATE)
    rates = [1e-5, 2e-5, 3e-5, 5e-5]
    trials = [measured(n, {"learning_rate": rate}, 1.0 + n) for n, rate in enumerate(rates)]
    trials += [measured(4 + n, {"learning_rate": rate}, 0.0, "failed") for n, rate in enumerate((1e-3, 3e-3, 1e-2))]
    for number in range(20):
        step = decision(space, trials, number, DRAWS).by_model()
        assert isinstance(step, Start)
        assert step.assignment is not None
        assert step.assignment.parameters.learning_rate < 1e-3


def test_paused_trials_go_on_when_all_configurations_were_tried() -> None:
    space = space_of(lora_r={"choices": [4, 8, 16, 32]})
    best = TrialView(
        number=0, standing="complete", sampled={"lora_r": 4}, losses={10: 1.1, 30: 1.05, 100: 1.0}, ladder=LADDER
    )
    trials = [best, *(measured(index, {"lora_r": 4 * 2**index}, 1.08 + index / 10) for index in (1, 2, 3))]
    for number in range(20):
        with pytest.raises(Exhausted, match="all 4 points"):
            decision(space, trials, number, IMPROVEMENTS).by_model()
        step = FreezeThaw(space, lambda _: 100, IMPROVEMENTS).propose(view_of(trials, number))
        assert isinstance(step, Advance)


def test_a_configuration_that_was_tried_is_passed_over_and_the_numbers_are_of_the_chosen_one() -> None:
    space = space_of(lora_r={"choices": [2, 4, 8, 16, 32, 64]})
    ranks = {4: 1.1, 8: 1.0, 16: 1.1, 64: 1.3}
    trials = [measured(number, {"lora_r": r}, loss, "pruned") for number, (r, loss) in enumerate(ranks.items())]
    for number in range(10):
        step = decision(space, trials, number, IMPROVEMENTS).by_model()
        assert isinstance(step, Start)
        assert step.assignment is not None
        chosen = step.assignment.sampled["lora_r"]
        assert chosen in (2, 32)
        assert step.numbers["rule"] == "improvement"
        assert 1.05 < float(step.numbers["predicted_loss"] or 0) < 1.6


def test_more_memory_than_what_ran_out_is_not_proposed() -> None:
    space = space_of(lora_r={"choices": [2, 4, 8, 16, 32, 64, 128, 256]}, learning_rate=RATE)
    sizes = {index: 1_000_000_000 * 2**index for index in range(8)}
    trials = [
        TrialView(
            number=index,
            standing="paused",
            sampled={"lora_r": 2 * 2**index, "learning_rate": 1e-4 * 3**index},
            losses={10: 1.0 - index / 10},
            ladder=LADDER,
            memory_bytes=sizes[index],
        )
        for index in range(4)
    ]
    sampled = {"lora_r": 32, "learning_rate": 1e-5}
    trials.append(
        TrialView(
            number=4, standing="failed", sampled=sampled, outcome=Outcome.OOM, ladder=LADDER, memory_bytes=sizes[4]
        )
    )
    for number in range(20):
        step = decision(space, trials, number, IMPROVEMENTS).by_model()
        if isinstance(step, Start):
            assert step.assignment is not None
            assert step.assignment.parameters.lora_r <= 32
