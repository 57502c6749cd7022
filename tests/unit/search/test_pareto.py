"""Objectives beside the loss, and who dominates whom."""

import math

import numpy as np

from hpo_service.search.pareto import costs, measured, nondomination_ranks, values
from hpo_service.spec.objectives import LOSS, Objective

SPEED = Objective(name="train_tokens_per_second", goal="maximize")
SIZE = Objective(name="adapter_parameters", goal="minimize")


def test_measures_follow_from_what_the_dispatcher_counts() -> None:
    attrs = {
        "tokens": 5000, "train_seconds": 10.0, "cost_usd": 0.5, "examples": 100, "total_examples": 1000,
        "adapter_parameters": 64,
    }  # fmt: skip
    assert measured(attrs) == {"train_tokens_per_second": 500.0, "cost_usd": 5.0, "adapter_parameters": 64.0}
    assert measured({"seconds": 1.0, "train_seconds": 0.0, "examples": 0}) == {}


def test_what_is_not_known_is_as_bad_as_can_be() -> None:
    assert values((LOSS, SPEED, SIZE), 1.5, {"adapter_parameters": 8.0}) == [1.5, -math.inf, 8.0]
    assert values((LOSS, SIZE), 1.5, {}) == [1.5, math.inf]


def test_fronts_are_peeled_one_by_one() -> None:
    rows = [[1.0, 5.0], [2.0, 9.0], [2.0, 4.0], [3.0, 4.0], [1.0, 5.0], [4.0, 1.0]]
    assert nondomination_ranks(costs((LOSS, SPEED), rows)).tolist() == [0, 0, 1, 2, 0, 3]
    assert nondomination_ranks(np.zeros((0, 2))).tolist() == []


def test_equal_trials_do_not_dominate_each_other() -> None:
    assert nondomination_ranks(costs((LOSS, SIZE), [[1, 1], [1, 1], [2, 0]])).tolist() == [0, 0, 0]
