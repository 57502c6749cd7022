"""The loss at which a trial is expected to end."""

import pytest

from hpo_service.search.samplers.expectations import expected_ends
from hpo_service.search.strategies.base import TrialView
from tests.searching import trial, view
from trainer.spec import Outcome


def test_a_paused_trial_gains_what_those_ahead_gained() -> None:
    ahead = [trial(0, "complete", [1.0, 0.8, 0.5]), trial(1, losses=[1.1, 0.8]), trial(2, losses=[1.2, 0.8])]
    ends = expected_ends(view(*ahead, trial(3, losses=[1.3])))
    assert ends == pytest.approx({0: 0.5, 1: 0.5, 2: 0.5, 3: 1.3 - 0.3 - 0.3})


def test_being_far_is_no_merit() -> None:
    """With last losses the worse trial, which went on, would rank first."""
    ends = expected_ends(view(trial(0, "complete", [1.0, 0.9, 0.8]), trial(1, losses=[0.95])))
    assert ends[1] < ends[0]


def test_a_trial_with_fewer_epochs_gains_up_to_its_own_end() -> None:
    long = trial(0, "complete", [1.0, 0.8, 0.5])
    short = TrialView(number=1, standing="paused", losses={10: 1.1}, ladder=(10, 30))
    assert expected_ends(view(long, short))[1] == pytest.approx(0.9)


def test_where_nobody_went_nothing_is_gained() -> None:
    assert expected_ends(view(trial(0, losses=[1.0]), trial(1, "running", [2.0]))) == {0: 1.0, 1: 2.0}


def test_what_failed_for_its_configuration_is_as_bad_as_the_worst() -> None:
    seen = view(
        trial(0, losses=[1.0]),
        trial(1, losses=[3.0]),
        trial(2, "failed", [0.1], outcome=Outcome.DIVERGED),
        trial(3, "failed", outcome=Outcome.OOM),
        trial(4, losses=[float("nan")]),
        trial(5, "failed", [0.1], outcome=Outcome.LOST),
    )
    assert expected_ends(seen) == {0: 1.0, 1: 3.0, 2: 3.0, 3: 3.0, 4: 3.0}


def test_without_any_loss_nothing_is_known() -> None:
    assert expected_ends(view(trial(0, "failed", outcome=Outcome.OOM), trial(1, "running"))) == {}
