"""Trials of earlier studies in another space, and their losses at the same number of examples."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from hpo_service.search.strategies.base import TrialView
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


@pytest.mark.parametrize("change", [{"learning_rate": 0.1}, {"lora_r": 32}, {"lr_scheduler": "linear"}])
def test_what_lies_outside_has_no_place(change: dict[str, object]) -> None:
    assert place(SPACE, POINT | change) is None


def test_what_is_not_known_has_no_place() -> None:
    assert place(SPACE, {name: value for name, value in POINT.items() if name != "lora_r"}) is None


def test_a_past_leaves_out_what_has_no_place_and_studies_with_too_little() -> None:
    rates = [1e-4, 2e-4, 5e-4, 1e-3, 0.5]
    points = tuple(POINT | {"learning_rate": rate} for rate in rates)
    study = PastStudy(study="one", similarity=0.5, examples=100, points=points, losses=(4.0, 3.0, 2.0, 1.0, 0.1))
    few = PastStudy(study="few", similarity=1.0, examples=100, points=points[:3], losses=(1.0, 2.0, 3.0))
    past = recall(SPACE, [study, few])
    assert past.studies == ("one",)
    assert past.similarities.tolist() == [0.5]
    assert len(past.top(np.ones(1), 10)) == 4
    assert not recall(SPACE, [])


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
