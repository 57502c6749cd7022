"""How trials are shown to the samplers of Optuna."""

from typing import Any

import pytest
from optuna.samplers import RandomSampler
from optuna.trial import TrialState

from hpo_service.search.samplers.expectations import expected_ends
from hpo_service.search.samplers.observations import study_by_ends, study_by_rungs
from hpo_service.search.strategies.base import TrialView
from tests.searching import space_of, trial, view
from trainer.spec import Outcome


def test_how_trials_are_shown_by_rungs() -> None:
    space = space_of(lora_r={"choices": [8, 16, 32]})

    def shown(**more: Any) -> tuple[Any, ...] | None:
        seen = view(TrialView(number=0, sampled={"lora_r": 16}, ladder=(10, 30), **more))
        trials = study_by_rungs(space, seen, RandomSampler(seed=0)).get_trials(deepcopy=False)
        return (trials[0].state, trials[0].value, trials[0].intermediate_values) if trials else None

    both = {10: 0.5, 30: 0.4}
    assert shown(standing="waiting") is None
    assert shown(standing="running") == (TrialState.RUNNING, None, {})
    assert shown(standing="running", losses={10: 0.5}) == (TrialState.PRUNED, None, {10: 0.5})
    assert shown(standing="paused", losses={10: 0.5}) == (TrialState.PRUNED, None, {10: 0.5})
    assert shown(standing="complete", losses=both) == (TrialState.COMPLETE, 0.4, both)
    assert shown(standing="failed", outcome=Outcome.OOM, losses={10: 0.5}) == (TrialState.PRUNED, None, {})
    assert shown(standing="failed", outcome=Outcome.INFRA_ERROR) is None


@pytest.mark.parametrize(("loss", "rungs"), [(0.9, 1), (0.1, 2)])
def test_a_baseline_counts_as_far_as_it_would_have_come_by_itself(loss: float, rungs: int) -> None:
    space = space_of(lora_r={"choices": [8, 16, 32]})
    baseline = TrialView(
        number=0,
        standing="complete",
        sampled={"lora_r": 16},
        losses={10: loss, 30: loss, 100: loss},
        ladder=(10, 30, 100),
        baseline=True,
    )
    paused = [TrialView(number=1 + n, standing="paused", losses={10: 0.5, 30: 0.4}, ladder=(10, 30)) for n in range(3)]
    study = study_by_rungs(space, view(baseline, *paused), RandomSampler(seed=0))
    shown = study.get_trials(deepcopy=False)[0]
    assert (shown.state, len(shown.intermediate_values)) == (TrialState.PRUNED, rungs)


def test_a_loss_that_is_no_number_ranks_last() -> None:
    seen = view(trial(0, losses=[0.5, float("nan")]))
    (shown,) = study_by_rungs(space_of(lora_r={"choices": [8, 16]}), seen, RandomSampler(seed=0)).get_trials()
    assert (shown.state, shown.value, shown.intermediate_values) == (TrialState.PRUNED, None, {})


def test_how_trials_are_shown_by_ends() -> None:
    seen = view(
        trial(0, losses=[0.5, 0.4]),
        trial(1, "running"),
        trial(2, "waiting"),
        trial(3, "failed", outcome=Outcome.OOM),
        trial(4, "running", losses=[0.7]),
    )
    study = study_by_ends(
        space_of(lora_r={"choices": [8, 16]}),
        seen,
        RandomSampler(seed=0),
        expected_ends(seen),
        lambda index: {"place": index},
    )
    shown = [(each.state, each.value, each.system_attrs) for each in study.get_trials()]
    assert shown == [
        (TrialState.COMPLETE, pytest.approx(0.4), {"place": 0}),
        (TrialState.COMPLETE, pytest.approx(0.6), {"place": 1}),
        (TrialState.COMPLETE, pytest.approx(0.6), {"place": 2}),
        (TrialState.RUNNING, None, {}),
    ]
