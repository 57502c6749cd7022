"""Who leads: ahead of every other at the highest rung at which both have a loss."""

import math
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo_service.search.leader import Lead, ahead_of, compare, leader

LOSSES = st.dictionaries(st.sampled_from([10, 30, 100, 130]), st.integers(1, 6).map(float), max_size=4)


def test_two_trials_are_compared_at_the_highest_rung_of_both() -> None:
    assert compare({10: 1.0, 30: 2.0}, {10: 3.0, 30: 1.0, 100: 0.5}) == lead(30, 2.0, 1.0)
    assert compare({10: 1.0, 30: math.nan}, {10: 3.0, 30: 1.0}) == lead(10, 1.0, 3.0)
    assert compare({10: 1.0}, {30: 1.0}) is None


def test_lower_after_fewer_examples_is_ahead_of_a_trial_without_a_loss_there() -> None:
    """A bracket of hyperband that begins late has no loss at the early rungs."""
    assert compare({20: 4.8}, {100: 5.0}) == lead(20, 4.8, 5.0, other_examples=100)
    assert compare({100: 5.0}, {20: 4.8}) == lead(100, 5.0, 4.8, other_examples=20)
    assert compare({20: 5.1}, {100: 5.0}) is None
    assert compare({10: 6.0, 20: 4.8}, {10: 5.9, 100: 5.0}) == lead(20, 4.8, 5.0, other_examples=100)
    assert compare({10: 6.0, 20: 5.1}, {10: 5.9, 100: 5.0}) == lead(10, 6.0, 5.9)
    assert compare({20: 4.8}, {60: 4.9, 100: 4.7}) == lead(20, 4.8, 4.9, other_examples=60)
    assert leader({3: {100: 5.0}, 6: {20: 4.8}}) == 6
    assert ahead_of({100: 5.0}, [(6, {20: 4.8}), (7, {20: 5.1})]) == [6]


def lead(examples: int, loss: float, other_loss: float, *, other_examples: int | None = None) -> Lead:
    return Lead(examples=examples, loss=loss, other_loss=other_loss, other_examples=other_examples or examples)


@pytest.mark.parametrize(
    ("trials", "number"),
    [
        ({}, None),
        ({0: {}, 1: {10: math.nan}}, None),
        ({0: {10: 2.0}, 1: {10: 1.0, 30: math.nan}}, 0),
        ({0: {10: 2.0, 30: 1.0}, 1: {10: 1.9}}, 1),
        ({0: {10: 2.0, 30: 1.0}, 1: {10: 2.1}}, 0),
        ({0: {10: 2.0, 30: 1.0}, 1: {10: 1.9, 30: 1.1}}, 0),
        ({0: {10: 2.0}, 1: {10: 2.0}}, 0),
        ({0: {10: 2.0, 30: 9.0}, 1: {10: 1.0}, 2: {20: 0.1}}, 2),
    ],
)
def test_who_leads(trials: Mapping[int, Mapping[int, float]], number: int | None) -> None:
    assert leader(trials) == number


@given(st.lists(LOSSES, max_size=7))
def test_who_is_ahead_of_every_other_leads(found: list[dict[int, float]]) -> None:
    trials = dict(enumerate(found))

    def is_ahead(number: int, other: int) -> bool:
        lead = compare(trials[number], trials[other])
        return lead is not None and (lead.loss, number) < (lead.other_loss, other)

    unbeaten = [one for one in trials if trials[one] and all(is_ahead(one, each) for each in trials if each != one)]
    if unbeaten:
        assert leader(trials) == unbeaten[0]
    assert (leader(trials) is None) is not any(trials.values())


def test_those_ahead_of_the_best_come_with_the_furthest_ahead_first() -> None:
    best = {10: 2.0, 30: 1.5, 100: 1.0}
    trials = [(1, {10: 1.9}), (2, {10: 1.0, 30: 1.6}), (3, {10: 3.0, 30: 1.2}), (4, {10: 2.0}), (5, {20: 0.1})]
    assert ahead_of(best, trials) == [5, 3, 1]
