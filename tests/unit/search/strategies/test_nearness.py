"""How near a point may be to a trial, and what is found where one is too near."""

from collections.abc import Mapping

import numpy as np
import pytest

from hpo_service.search.strategies.base import TrialView
from hpo_service.search.strategies.nearness import Exhausted, Tried
from hpo_service.search.strategies.places import Places
from hpo_service.spec.space import Assignment, Infeasible, SearchSpace
from tests.searching import RATE, distance, space_of, view

SPACE = space_of(
    learning_rate=RATE,
    lora_r={"choices": [4, 8, 16]},
    lr_scheduler={"choices": ["cosine", "wsd"]},
    decay_ratio={"low": 0.1, "high": 0.4, "when": {"lr_scheduler": ["wsd"]}},
)
POINT = {"learning_rate": 1e-3, "lora_r": 8, "lr_scheduler": "wsd", "decay_ratio": 0.25}


def tried(space: SearchSpace, *points: Mapping[str, object]) -> Tried:
    """Trials in all standings, one of them failed."""
    trials = [
        TrialView(number=number, standing="failed" if number == 0 else "paused", sampled=point)
        for number, point in enumerate(points)
    ]
    return Tried(space, view(*trials))


def at(**changes: object) -> Assignment:
    return SPACE.assignment({**POINT, **changes})


@pytest.mark.parametrize(
    ("changes", "allowed"),
    [
        ({}, False),
        ({"learning_rate": 1e-3 * 10**0.05}, False),  # 0.017 of three decades
        ({"learning_rate": 1e-3 * 10**0.07}, True),
        ({"decay_ratio": 0.255}, False),
        ({"decay_ratio": 0.257}, True),
        ({"lora_r": 16}, True),
        ({"lr_scheduler": "cosine"}, True),
    ],
)
def test_a_point_is_apart_by_its_largest_difference(changes: dict[str, object], allowed: bool) -> None:
    assert tried(SPACE, POINT).allows(at(**changes)) is allowed
    assert (distance(SPACE, at(**changes).sampled, POINT) > 0.02) is allowed


def test_a_refinement_is_nearer_to_what_it_refines_and_to_nothing_else() -> None:
    near = at(decay_ratio=0.255)
    two = tried(SPACE, POINT, {**POINT, "decay_ratio": 0.2585})
    assert two.refines(near) == [0, 1]
    assert not two.allows(near, [0])
    assert not two.allows(near, [1])
    assert two.allows(near, [0, 1])
    assert not tried(SPACE, POINT).allows(at(decay_ratio=0.251), [0])
    assert tried(SPACE, POINT).refines(at(decay_ratio=0.3)) == []


def test_many_points_are_judged_as_each_alone() -> None:
    random = np.random.default_rng(0)
    shares = random.random((400, 4))
    points = [found for row in shares if isinstance(found := Places(SPACE).assignment(row), Assignment)]
    known = tried(SPACE, *(point.sampled for point in points[:100]))
    places = known.places.of_shares(shares)
    for refined in ([], [3, 5, 8]):
        alone = [bool(known.free(place[None], refined)[0]) for place in places]
        assert known.free(places, refined).tolist() == alone
        assert 20 < sum(alone) < 300


def test_places_of_shares_are_those_of_what_they_stand_for() -> None:
    """Conditions on categories, on numbers, on each other and on derived values."""
    spaces = (
        SPACE,
        space_of(
            lora_r={"choices": [4, 8, 16]},
            lora_dropout={"low": 0.0, "high": 0.2, "when": {"lora_r": [8, 16]}},
            effective_batch={"low": 4, "high": 64, "log": True},
            weight_decay={"low": 0.0, "high": 1.0, "step": 0.25, "when": {"lora_dropout": [0.0], "lora_r": [8]}},
        ),
        space_of(
            lora_r={"choices": [4, 8, 16]},
            lora_alpha={"expr": "2 * lora_r"},
            lora_dropout={"low": 0.0, "high": 0.2, "when": {"lora_alpha": [16]}},
        ),
    )
    for space in spaces:
        places = Places(space)
        shares = np.random.default_rng(1).random((60, len(space.dimensions)))
        assignments = [places.assignment(row) for row in shares]
        expected = [places.of_sampled(one.sampled) for one in assignments if isinstance(one, Assignment)]
        np.testing.assert_allclose(places.of_shares(shares), expected, atol=3e-3)


def test_the_nearest_point_beside_a_trial_keeps_its_words() -> None:
    found = tried(SPACE, POINT).beside(at(), np.random.default_rng(0))
    assert found is not None
    assert found.sampled["lr_scheduler"] == "wsd"
    assert 0.02 <= distance(SPACE, found.sampled, POINT) < 0.06


def test_words_have_nothing_beside_them() -> None:
    space = space_of(lr_scheduler={"choices": ["cosine", "wsd"]})
    known = tried(space, {"lr_scheduler": "wsd"})
    assert known.beside(space.assignment({"lr_scheduler": "wsd"}), np.random.default_rng(0)) is None
    assert known.anywhere(np.random.default_rng(0))[0].sampled == {"lr_scheduler": "cosine"}


def test_the_last_point_of_many_is_found() -> None:
    """One of 4,000, which even draws would miss."""
    epochs = {"choices": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]}
    space = space_of(lora_r={"low": 1, "high": 40}, effective_batch={"low": 1, "high": 10}, epochs=epochs)
    every = Places(space).every_point()
    assert every is not None
    points = [found.sampled for row in every if isinstance(found := Places(space).assignment(row), Assignment)]
    left = points.pop(1234)
    assert tried(space, *points).anywhere(np.random.default_rng(0))[0].sampled == left


def test_an_exhausted_space_says_what_was_looked_at() -> None:
    space = space_of("lora_r < 32", lora_r={"choices": [8, 16, 32]})
    random = np.random.default_rng(0)
    with pytest.raises(Exhausted, match=r"^the space is exhausted: all 2 points of it that can be trained were tried$"):
        tried(space, {"lora_r": 8}, {"lora_r": 16}).anywhere(random)
    fine = space_of(lora_r={"low": 1, "high": 100})
    with pytest.raises(Exhausted, match="no point of it differs from every trial by 2% of a parameter's range"):
        tried(fine, *({"lora_r": rank} for rank in range(1, 101, 2))).anywhere(random)


def test_another_quantity_that_trains_the_same_is_the_same_trial() -> None:
    """`exponent` only reaches the trainer through the rank."""
    space = space_of(exponent={"low": 2.0, "high": 4.0}, lora_r={"expr": "2 ** round(exponent)"})
    first = space.assignment({"exponent": 2.6})
    trial = TrialView(number=0, standing="paused", sampled=first.sampled, parameters=first.parameters.model_dump())
    known = Tried(space, view(trial))
    assert not known.allows(space.assignment({"exponent": 3.4}))
    assert known.allows(space.assignment({"exponent": 3.6}))


NARROW = space_of(
    "weight_decay + lora_dropout < 1e-4",
    learning_rate=RATE,
    weight_decay={"low": 0.0, "high": 1.0},
    lora_dropout={"low": 0.0, "high": 0.5},
)


def test_a_space_of_which_constraints_leave_little_is_not_exhausted() -> None:
    """Even draws do not find what is left; what a trial has does."""
    known = [{"learning_rate": 10.0**power, "weight_decay": 0.0, "lora_dropout": 0.0} for power in (-5, -4, -3)]
    for seed in range(5):
        found, _ = tried(NARROW, *known).anywhere(np.random.default_rng(seed))
        assert found.parameters.weight_decay + found.parameters.lora_dropout < 1e-4
        assert all(distance(NARROW, found.sampled, one) >= 0.02 for one in known)


def test_where_no_point_can_be_trained_nothing_is_exhausted() -> None:
    with pytest.raises(Infeasible, match="none of 4000 points of the space could be trained; the last one: "):
        tried(NARROW).anywhere(np.random.default_rng(1))
