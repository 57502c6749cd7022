"""Importances over all rungs, and best values at the edge of their range."""

import math
import random
from typing import Any

import pytest

from hpo_service.search.importances import Edge, beyond_chance, edges, importances, ranked, unexplored
from hpo_service.search.strategies.base import TrialView
from hpo_service.spec.space import SearchSpace
from tests.searching import space_of

LADDER = (60, 180, 1000)
RATE = {"low": 1e-5, "high": 1e-3, "log": True}
SPACE = space_of(
    learning_rate=RATE,
    lora_dropout={"low": 0.0, "high": 0.2},
    lora_r={"choices": [4, 8, 16]},
)


def trials_of(space: SearchSpace, count: int, best_rate: float, **fixed: Any) -> list[TrialView]:
    """Trials at random points; the loss depends on the learning rate alone. Two in three are paused early."""
    source = random.Random(1)
    found = []
    for number in range(count):
        sampled = {name: space.spread(name, source.random()) for name in space.dimensions} | fixed
        distance = abs(math.log10(float(sampled["learning_rate"])) - math.log10(best_rate))
        reached = LADDER if number % 3 == 0 else LADDER[:1]
        losses = {rung: (1 + 0.3 * distance) * (1 + 5 / math.sqrt(rung)) for rung in reached}
        standing: Any = "complete" if reached == LADDER else "paused" if number % 3 == 1 else "pruned"
        found.append(TrialView(number=number, standing=standing, sampled=sampled, losses=losses, ladder=LADDER))
    return found


def test_trials_of_different_rungs_are_ranked_together() -> None:
    """A good trial that is paused early comes before a bad one that is complete, though its loss is higher."""
    trials = trials_of(SPACE, 30, 1e-4)
    by_distance = sorted(trials, key=lambda t: abs(math.log10(float(t.sampled["learning_rate"])) + 4))
    best = [trial.number for trial, _ in ranked(trials, LADDER)[:8]]
    assert {trial.number for trial in by_distance[:4]} <= set(best)
    assert any(trials[number].standing == "paused" for number in best)


def test_what_matters_is_most_important() -> None:
    found = importances(SPACE, trials_of(SPACE, 40, 1e-4), LADDER)
    assert next(iter(found)) == "learning_rate"
    assert found["learning_rate"] > 0.5
    assert sum(found.values()) == pytest.approx(1)
    assert set(found) == set(SPACE.dimensions)


def test_what_matters_is_beyond_chance_once_there_are_enough_trials() -> None:
    assert beyond_chance(SPACE, trials_of(SPACE, 40, 1e-4), LADDER) == ["learning_rate"]
    assert beyond_chance(SPACE, trials_of(SPACE, 7, 1e-4), LADDER) == []
    same = trials_of(SPACE, 40, 1e-4, lora_r=8, learning_rate=1e-4, lora_dropout=0.1)
    assert beyond_chance(SPACE, same, LADDER) == []


def test_where_nothing_matters_hardly_ever_anything_is_beyond_chance() -> None:
    """One study in 20 is expected to name a parameter; more than 5 of 30 would be so rare as 1 in 300."""
    source, named, largest = random.Random(3), 0, []
    for _ in range(30):
        trials = [
            TrialView(
                number=number,
                standing="complete",
                sampled={name: SPACE.spread(name, source.random()) for name in SPACE.dimensions},
                losses={LADDER[-1]: source.gauss(3, 0.3)},
                ladder=LADDER,
            )
            for number in range(10)
        ]
        named += bool(beyond_chance(SPACE, trials, LADDER))
        largest.append(max(importances(SPACE, trials, LADDER).values()))
    assert named <= 5
    assert sum(largest) / len(largest) > 0.5  # which is why shares alone say little


def test_what_never_varied_is_not_explored_and_has_no_share() -> None:
    trials = trials_of(SPACE, 40, 1e-4, lora_r=8)
    assert unexplored(SPACE, trials) == ["lora_r"]
    found = importances(SPACE, trials, LADDER)
    assert set(found) == {"learning_rate", "lora_dropout"}
    assert sum(found.values()) == pytest.approx(1)
    same = trials_of(SPACE, 10, 1e-4, lora_r=8, learning_rate=1e-4, lora_dropout=0.1)
    assert importances(SPACE, same, LADDER) == {}


def test_few_failed_or_infinite_trials_say_nothing() -> None:
    few = trials_of(SPACE, 7, 1e-4)
    infinite = TrialView(number=7, standing="paused", sampled=few[0].sampled, losses={60: math.inf})
    failed = TrialView(number=8, standing="failed", sampled=few[0].sampled, losses={60: 1.0})
    assert importances(SPACE, [*few, infinite, failed], LADDER) == {}
    assert edges(SPACE, [*few, infinite, failed], LADDER) == []
    assert ranked([], LADDER) == []


def test_a_parameter_that_only_some_trials_use_has_an_importance() -> None:
    space = space_of(
        learning_rate=RATE,
        lr_scheduler={"choices": ["cosine", "constant"]},
        warmup_ratio={"low": 0.0, "high": 0.1, "when": {"lr_scheduler": ["cosine"]}},
    )
    trials = [
        TrialView(
            number=trial.number,
            standing=trial.standing,
            sampled={n: v for n, v in trial.sampled.items() if n != "warmup_ratio" or trial.number % 2},
            losses=trial.losses,
        )
        for trial in trials_of(space, 30, 1e-4)
    ]
    assert set(importances(space, trials, LADDER)) == set(space.dimensions)


def test_a_best_value_inside_the_range_is_no_edge() -> None:
    assert edges(SPACE, trials_of(SPACE, 40, 1e-4), LADDER) == []


def test_a_best_value_at_the_upper_edge_says_how_to_widen() -> None:
    (edge,) = edges(SPACE, trials_of(SPACE, 60, 1e-3), LADDER)
    assert (edge.parameter, edge.side, edge.change) == ("learning_rate", "upper", {"high": 0.003})
    assert edge.best > 5e-4
    assert SPACE.extend({edge.parameter: edge.change}).largest("learning_rate") == 0.003


def test_a_best_value_at_the_lower_edge_says_how_to_widen() -> None:
    (edge,) = edges(SPACE, trials_of(SPACE, 60, 1e-5), LADDER)
    assert (edge.side, edge.change) == ("lower", {"low": 3.3e-6})


def edge_of(name: str, form: dict[str, Any], value: object) -> Edge | None:
    space = space_of(learning_rate=RATE, **{name: form})
    return next((edge for edge in edges(space, trials_of(space, 40, 1e-4, **{name: value}), LADDER)), None)


@pytest.mark.parametrize(
    ("name", "form", "value", "change"),
    [
        ("lora_r", {"choices": [4, 8, 16]}, 16, {"choices": [4, 8, 16, 32]}),
        ("lora_r", {"choices": [4, 8, 16]}, 4, {"choices": [2, 4, 8, 16]}),
        ("lora_r", {"low": 4, "high": 64, "log": True}, 64, {"high": 128}),
        ("lora_alpha", {"low": 8, "high": 32, "step": 8}, 32, {"high": 48}),
        ("epochs", {"low": 1.0, "high": 3.0}, 2.95, {"high": 4.0}),
        ("lora_dropout", {"low": 0.05, "high": 0.2}, 0.051, {"low": 0.0}),
    ],
)
def test_every_form_that_can_grow_is_widened(
    name: str, form: dict[str, Any], value: object, change: dict[str, Any]
) -> None:
    edge = edge_of(name, form, value)
    assert edge is not None
    assert edge.change == change


@pytest.mark.parametrize(
    ("name", "form", "value"),
    [
        ("lora_dropout", {"low": 0.0, "high": 0.2}, 0.0),
        ("lora_r", {"choices": [1, 2, 4]}, 1),
        ("lora_r", {"choices": [8]}, 8),
        ("epochs", {"choices": [2]}, 2.0),
        ("lr_scheduler", {"choices": ["cosine", "constant"]}, "cosine"),
    ],
)
def test_what_cannot_grow_is_no_edge(name: str, form: dict[str, Any], value: object) -> None:
    assert edge_of(name, form, value) is None
