"""What the live benchmark concludes from two curves, and that it measures nothing twice."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.search_live.__main__ import summary
from benchmarks.search_live.work import Cells, Pair, Point, Side

RECIPE = Side(
    curve=(Point(seconds=10, examples=100, loss=2.0), Point(seconds=60, examples=600, loss=1.0)),
    seconds=100,
    examples=1000,
    trials=2,
    complete=1,
    best_loss=1.0,
    start_seconds=0,
    load_average=1.0,
)
OURS = replace(
    RECIPE,
    curve=(Point(seconds=5, examples=50, loss=1.5), Point(seconds=20, examples=250, loss=0.9)),
    start_seconds=5.0,
    best_loss=None,
)


def pair(ours: Side, judged: float = 1.5) -> Pair:
    return Pair(recipe=RECIPE, ours=ours, judged=judged)


def test_the_whole_bill_is_compared_with_the_moment_of_the_match() -> None:
    found = summary([pair(OURS)])
    assert (found["speedup_worker_time"], found["speedup_worker_time_cold"], found["speedup_examples"]) == (5, 4, 4)
    assert (found["matched"], found["recipe_reached"]) == ("1 of 1", 0.6)


def test_a_seed_that_did_not_match_makes_the_speed_up_unknown() -> None:
    late = replace(OURS, curve=OURS.curve[:1])
    found = summary([pair(OURS), pair(late)])
    assert found["speedup_worker_time"] is None
    assert found["matched"] == "1 of 2"
    assert found["speedup_worker_time_by_seed"] == [5, None]
    assert found["speedup_worker_time_judged"] == 20  # the first evaluation is as good as the judged configuration
    assert found["matched_judged"] == "2 of 2"


def test_sides_are_kept(tmp_path: Path) -> None:
    cells = Cells(tmp_path / "out" / "cells.jsonl")
    assert cells.find("a") is None
    cells.add("a", RECIPE)
    cells.add("b", OURS)
    assert Cells(tmp_path / "out" / "cells.jsonl").find("b") == OURS
    assert cells.find("a") == RECIPE
    cells.add_loss("c", 1.25)
    assert (cells.find_loss("c"), cells.find_loss("d")) == (1.25, None)


def test_the_geometric_mean_over_seeds() -> None:
    faster = replace(OURS, curve=(Point(seconds=5, examples=50, loss=0.9),))
    assert summary([pair(OURS), pair(faster)])["speedup_worker_time"] == pytest.approx(10)


def test_the_match_of_the_means() -> None:
    slower = replace(OURS, curve=(Point(seconds=30, examples=500, loss=1.5), Point(seconds=50, examples=500, loss=1.1)))
    found = summary([pair(OURS), pair(slower)])
    assert (found["speedup_of_means"], found["speedup_of_means_examples"]) == (2, 2)
    never = replace(OURS, curve=OURS.curve[:1])
    assert summary([pair(OURS), pair(never)])["speedup_of_means"] is None
