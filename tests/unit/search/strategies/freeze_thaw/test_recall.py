"""Trials of earlier studies in another space, and their losses at the same number of examples."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from hpo_service.search.strategies.base import Start, StudyView, TrialView
from hpo_service.search.strategies.freeze_thaw import FreezeThaw
from hpo_service.search.strategies.freeze_thaw.cube import Cube
from hpo_service.search.strategies.freeze_thaw.recall import carried, place, recall
from hpo_service.spec import PastStudy
from tests.searching import RATE, space_of

LADDER = (10, 30, 100)
SPACE = space_of(
    learning_rate=RATE,
    lora_r={"choices": [4, 8, 16]},
    effective_batch={"low": 4, "high": 32},
    lr_scheduler={"choices": ["cosine", "wsd"]},
    decay_ratio={"low": 0.1, "high": 0.4, "when": {"lr_scheduler": ["wsd"]}},
    weight_decay=0.0,
)
CUBE = Cube(SPACE)
POINT = {"learning_rate": 1e-3, "lora_r": 8, "effective_batch": 16, "lr_scheduler": "cosine", "decay_ratio": 0.2}


def test_a_point_is_placed_as_the_space_samples_it() -> None:
    found = place(SPACE, POINT)
    assert found is not None
    assert found["learning_rate"] == pytest.approx(1e-3)
    assert {name: found[name] for name in ("lora_r", "effective_batch", "lr_scheduler")} == {
        "lora_r": 8,
        "effective_batch": 16,
        "lr_scheduler": "cosine",
    }
    assert "decay_ratio" not in found
    decays = place(SPACE, POINT | {"lr_scheduler": "wsd"})
    assert decays is not None
    assert decays["decay_ratio"] == pytest.approx(0.2)


@pytest.mark.parametrize(("rank", "nearest"), [(5, 4), (6, 8), (11, 8), (12, 16)])
def test_a_number_between_choices_is_the_nearer_one(rank: int, nearest: int) -> None:
    found = place(SPACE, POINT | {"lora_r": rank})
    assert found is not None
    assert found["lora_r"] == nearest


@pytest.mark.parametrize(
    ("change", "nearest"),
    [
        ({"learning_rate": 0.1}, {"learning_rate": 1e-2}),
        ({"learning_rate": 1e-9}, {"learning_rate": 1e-5}),
        ({"lora_r": 256}, {"lora_r": 16}),
        ({"lora_r": 1}, {"lora_r": 4}),
        ({"effective_batch": 64}, {"effective_batch": 32}),
    ],
)
def test_a_value_outside_is_the_nearest_inside(change: dict[str, object], nearest: dict[str, object]) -> None:
    found, inside = place(SPACE, POINT | change), place(SPACE, POINT)
    assert inside is not None
    assert found == inside | nearest


def test_another_word_has_no_place_and_what_is_not_known_has_none() -> None:
    assert place(SPACE, POINT | {"lr_scheduler": "linear"}) is None
    assert place(SPACE, {name: value for name, value in POINT.items() if name != "lora_r"}) is None


def test_a_past_leaves_out_what_has_no_place_and_studies_with_too_little() -> None:
    points = tuple(POINT | {"learning_rate": rate} for rate in (1e-4, 2e-4, 5e-4, 1e-3))
    points = (*points, POINT | {"lr_scheduler": "linear"})
    losses = (4.0, 3.0, 2.0, 1.0, 0.1)
    study = PastStudy(study="one", similarity=0.5, examples=100, points=points, losses=losses, good=(3, 4))
    few = PastStudy(study="few", similarity=1.0, examples=100, points=points[2:], losses=losses[2:], good=(2,))
    past = recall(SPACE, [study, few])
    assert past.studies == ("one",)
    assert past.similarities.tolist() == [0.5]
    (offered,) = past.top(np.ones(1), 10)
    assert offered[CUBE.names.index("learning_rate")] == pytest.approx(2 / 3)
    assert not recall(SPACE, [])


def test_what_was_good_with_a_rank_that_is_no_choice_here_is_offered_at_the_nearest_one() -> None:
    """Six of eight trials had rank 64. The worst two, with a rank of this space, are not what was good there."""
    rates = [1e-3, 2e-3, 5e-4, 3e-3, 3e-4, 5e-3, 2e-5, 1e-5]
    points = tuple(POINT | {"learning_rate": rate, "lora_r": 64} for rate in rates[:6])
    points += tuple(POINT | {"learning_rate": rate} for rate in rates[6:])
    losses = tuple(1.0 + 0.1 * index for index in range(8))
    study = PastStudy(study="earlier", similarity=1.0, examples=100, points=points, losses=losses, good=(0, 1))
    past, offered = recall(SPACE, [study]), []
    trials: list[TrialView] = []
    strategy = FreezeThaw(SPACE, lambda _: 100, recall=lambda: past)
    for number in range(8):
        view = StudyView(seed=0, decision_number=number, max_trials=20, trials=tuple(trials), ladder=LADDER)
        step = strategy.propose(view)
        assert isinstance(step, Start)
        assert step.assignment is not None
        if step.numbers["rule"] == "portfolio":
            offered.append(step.assignment.sampled)
        trials.append(TrialView(number=number, standing="running", sampled=step.assignment.sampled, ladder=LADDER))
    assert {(point["learning_rate"], point["lora_r"]) for point in offered} == {(1e-3, 16), (2e-3, 16)}


def test_a_loss_is_told_of_the_point_that_had_it() -> None:
    """Far above the range everything diverged; that says little about the range's upper end, where losses were best."""
    rates = [*np.geomspace(1e-4, 1e-2, 12).tolist(), *np.geomspace(0.1, 10, 12).tolist()]
    losses = [2.0 - 0.05 * index for index in range(12)] + [9.0] * 12
    points = tuple(POINT | {"learning_rate": rate} for rate in rates)
    study = PastStudy(study="far", similarity=1.0, examples=100, points=points, losses=tuple(losses), good=(11,))
    past = recall(SPACE, [study])
    ends = np.array([CUBE.locate({**POINT, "learning_rate": rate}) for rate in (1e-4, 1e-2)])
    low, high = past.ranks(CUBE.features(ends))[0]
    assert high < low


def paused(number: int, quality: float, rungs: int) -> TrialView:
    losses = {rung: 1 + quality + 3 * rung**-0.5 for rung in LADDER[:rungs]}
    return TrialView(number=number, standing="paused", losses=losses, ladder=LADDER)


def test_losses_are_carried_to_the_end_although_only_good_trials_got_there() -> None:
    qualities = np.linspace(0, 1, 12)
    trials = [paused(number, float(quality), 3 if quality < 0.3 else 1) for number, quality in enumerate(qualities)]
    losses = carried(trials, LADDER)
    assert spearmanr(losses, qualities).statistic > 0.99
    assert losses[0] == pytest.approx(1.3, rel=0.02)
    assert losses.max() < max(trial.losses[10] for trial in trials)
