"""The objectives of trials beside the loss, and who dominates whom."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpo_service.spec.objectives import LOSS, Objective


def measured(attrs: Mapping[str, Any]) -> dict[str, float]:
    """What is known of a trial by its user attributes, by the objective's name; all of it after its first slice."""
    found: dict[str, float] = {}
    if attrs.get("train_seconds"):
        found["train_tokens_per_second"] = attrs["tokens"] / attrs["train_seconds"]
    if attrs.get("examples") and "total_examples" in attrs:
        found["cost_usd"] = attrs["cost_usd"] / attrs["examples"] * attrs["total_examples"]
    if "adapter_parameters" in attrs:
        found["adapter_parameters"] = float(attrs["adapter_parameters"])
    return found


def values(objectives: Sequence[Objective], loss: float, measures: Mapping[str, float]) -> list[float]:
    """The trial's value of every objective, in order; one that is not known is as bad as can be."""
    known = {**measures, LOSS.name: loss}
    return [
        known.get(objective.name, math.inf if objective.goal == "minimize" else -math.inf) for objective in objectives
    ]


def costs(objectives: Sequence[Objective], rows: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """Values [trials, objectives] with every sign turned so that less is better."""
    signs = [1.0 if objective.goal == "minimize" else -1.0 for objective in objectives]
    found: NDArray[np.float64] = np.array(rows, dtype=np.float64).reshape(-1, len(signs)) * signs
    return found


def nondomination_ranks(costs: NDArray[np.float64]) -> NDArray[np.intp]:
    """[trials]: 0 for those that none dominates, 1 for those that only rank 0 dominates, and so on."""
    pairs = (len(costs), len(costs))
    no_worse, better = np.ones(pairs, dtype=np.bool_), np.zeros(pairs, dtype=np.bool_)
    for column in costs.T:
        no_worse &= column[:, None] <= column
        better |= column[:, None] < column
    dominates = no_worse & better
    dominators, ranks, rank = dominates.sum(axis=0), np.full(len(costs), -1, dtype=np.intp), 0
    while (left := ranks < 0).any():
        front = np.flatnonzero(left & (dominators == 0))
        ranks[front] = rank
        dominators -= dominates[front].sum(axis=0)
        rank += 1
    return ranks
