"""What is said of a trial that is to be promoted."""

from typing import Any

import pytest

from hpo_service.search.best import Best, Confirmed, Improvement
from hpo_service.services.promotions.verdict import Change, changes, compare, verdict


def best(
    loss: float, baseline: float | None = 3.0, *, number: int = 4, seeds: int = 0, ends: int = 100, **confirmed: Any
) -> Best:
    """Trial 4 with the losses that it and trial 0, the baseline, which ends after 100 examples, have over `seeds`."""
    improvement = None
    if baseline is not None:
        improvement = Improvement(
            baseline_trial=0, examples=ends, baseline_examples=100, baseline_loss=baseline, loss=loss,
            relative=1 - loss / baseline, seeds=seeds,
        )  # fmt: skip
    known = None
    if confirmed:
        known = Confirmed(trial_number=number, mean=loss + 1, spread=0.01, seeds=7, shared_seeds=seeds, **confirmed)
    return Best(
        trial_number=number, loss=loss, examples=100, provisional=False, parameters={}, improvement=improvement,
        confirmed=known,
    )  # fmt: skip


def said(trial: Best, folds: tuple[float, ...] = (), baseline_folds: tuple[float, ...] = ()) -> str:
    return verdict(trial, compare(trial, folds, baseline_folds))


@pytest.mark.parametrize(
    ("trial", "sentence"),
    [
        (
            best(2.0, seeds=3, half_width=0.1),
            "Better than the baseline by 1.0000 ± 0.1000 loss over the 3 new seeds that both have after 100 examples.",
        ),
        (
            best(3.2, seeds=1, half_width=0.1),
            "Worse than the baseline by 0.2000 ± 0.1000 loss over the 1 new seed that both have after 100 examples.",
        ),
        (
            best(2.0, seeds=1, half_width=0.1, ends=300),
            "Better than the baseline by 1.0000 ± 0.1000 loss over the 1 new "
            "seed that both have, each at its own end: 300 and 100 examples.",
        ),
        (
            best(2.95, seeds=3, half_width=0.1),
            "Not known to be better than the baseline: its loss is 0.0500 ± 0.1000 lower over the 3 new seeds that "
            "both have after 100 examples.",
        ),
        (
            best(3.05, seeds=3, half_width=None),
            "Not known to be better than the baseline: its loss is 0.0500 higher over the 3 new seeds that both have "
            "after 100 examples.",
        ),
        (best(2.0, None), "There is no baseline to compare it with."),
        (best(3.0, number=0), "It is the baseline itself."),
    ],
)
def test_the_verdict_is_a_sentence(trial: Best, sentence: str) -> None:
    assert said(trial) == sentence


def test_one_seed_of_the_search_gives_a_wide_interval() -> None:
    folds = tuple(1.9 + 0.01 * fold for fold in range(20))
    near, far = best(2.99), best(2.0)
    assert said(near).startswith("Not known to be better than the baseline: its loss is 0.0100 ± ")
    assert said(near).endswith(" lower with the search's one seed after 100 examples, not confirmed.")
    found = compare(far, folds, tuple(fold + 1 for fold in folds))
    assert found is not None
    assert (found.better, found.seeds) == (True, 0)
    assert found.half_width is not None
    assert found.half_width > 0.01


def test_rows_that_disagree_widen_the_interval() -> None:
    same = compare(best(2.9), (2.9,) * 20, (3.0,) * 20)
    rows = tuple(2.9 + (3 if fold % 2 else -3) for fold in range(20))
    torn = compare(best(2.9), rows, (3.0,) * 20)
    assert same is not None
    assert torn is not None
    assert same.half_width is not None
    assert torn.half_width is not None
    assert torn.half_width > 2 * same.half_width


def test_changes_are_the_values_that_differ() -> None:
    before = {"parameters": {"lora_r": 8, "epochs": 1.0}, "note": "x", "gone": 1}
    after = {"parameters": {"lora_r": 16, "epochs": 1.0}, "note": "x", "new": [1]}
    assert changes(before, after) == [
        Change(path="parameters.lora_r", before=8, after=16),
        Change(path="new", before=None, after=[1]),
        Change(path="gone", before=1, after=None),
    ]
    assert changes(before, before) == []


def test_a_comparison_counts_the_seeds_that_both_have_not_those_of_the_winner() -> None:
    found = compare(best(2.0, seeds=1, half_width=0.1), (), ())
    assert found is not None
    assert (found.seeds, found.loss, found.difference) == (1, 2.0, -1.0)
