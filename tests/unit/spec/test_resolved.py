"""From a spec to what the dispatcher reads."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo_service.core.errors import InvalidSpec
from hpo_service.search.strategies import Asha, FreezeThaw, Median, NoPruning, build
from hpo_service.spec import ResolvedStudy, estimate
from hpo_service.spec.presets import PRESETS
from tests.searching import RATE, Simulation, resolved
from trainer.spec import Parameters
from trainer.training.lr_schedule import learning_rate, total_steps


def test_a_trip_through_json() -> None:
    study = resolved(
        preset="wide",
        budget={"deadline": "2030-01-01T00:00:00+02:00"},
        enqueue=[{"learning_rate": "1e-4", "lora_r": 8}],
    )
    stored = json.loads(json.dumps(study.model_dump(mode="json"), sort_keys=True))
    again = ResolvedStudy.model_validate(stored)
    assert again == study
    assert again.search_space() == study.search_space()
    assert again.limits().deadline == study.budget.deadline


def test_keys_beside_a_preset_override_it() -> None:
    study = resolved(
        preset="standard", space={"lora_r": 4, "weight_decay": {"low": 0, "high": 0.1}}, budget={"max_trials": 5}
    )
    space = study.search_space()
    assert space.assignment(space.point(study.baseline or {})).parameters.lora_r == 4
    assert "weight_decay" in space.dimensions
    assert "learning_rate" in space.dimensions
    assert study.budget.max_trials == 5
    assert study.search.strategy == "freeze_thaw"


def test_the_published_default_is_the_baseline() -> None:
    assert resolved(preset="quick").baseline == {"learning_rate": 2e-4}


def test_a_published_default_outside_the_space_is_no_baseline() -> None:
    study = resolved(preset="quick", space={"learning_rate": {"low": 1e-3, "high": 1e-2, "log": True}})
    assert study.baseline is None
    assert any("no baseline" in warning for warning in estimate(study).warnings)


def test_a_baseline_of_the_user_is_completed() -> None:
    study = resolved(preset="standard", baseline={"learning_rate": "3e-4", "lora_r": 8})
    assert study.baseline == {
        "learning_rate": 3e-4,
        "lora_r": 8,
        "lora_dropout": 0.0,
        "effective_batch": 16,
        "warmup_ratio": 0.03,
        "epochs": 1.0,
    }


@pytest.mark.parametrize(
    ("sections", "pointer"),
    [
        ({"baseline": {"learning_rate": 1.0}}, "/baseline/learning_rate"),
        ({"enqueue": [{"learning_rate": 1e-3}, {"lora_r": 8}]}, "/enqueue/1/lora_r"),
        ({"enqueue": [{}] * 5, "budget": {"max_trials": 4}}, "/budget/max_trials"),
        ({"preset": "standart"}, "/preset"),
        ({"space": {}}, "/space"),
        ({"space": {"learning_rate": {"low": 2, "high": 1}}}, "/space/learning_rate/low"),
        ({"constraints": ["1 +"]}, "/constraints/0"),
    ],
)
def test_mistakes(sections: dict[str, Any], pointer: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        resolved(**sections)
    assert [problem.pointer for problem in caught.value.problems] == [pointer]


def test_an_unknown_preset_is_answered_with_the_known_ones() -> None:
    with pytest.raises(InvalidSpec, match="Did you mean 'standard'") as caught:
        resolved(preset="standart")
    assert caught.value.problems[0].allowed == PRESETS


def test_rungs_count_examples_of_the_longest_trial() -> None:
    study = resolved(space={"learning_rate": RATE, "epochs": {"choices": [1, 3]}}, search={"strategy": "asha"})
    assert study.ladder == (180, 540, 1620, 3000)
    assert study.trial_rungs(Parameters(epochs=1)) == (180, 540, 1000)
    assert study.trial_rungs(Parameters(epochs=3)) == study.ladder


def test_what_a_share_pays_for_is_said_once() -> None:
    """ "its share of 1 pays for 4; share 1 pays for 4": no share is larger."""

    def unpaid(share: float) -> str:
        study = resolved(
            confirm={"top": 5, "seeds": 5, "share": share},
            budget={"max_trials": 8, "max_examples": 4000},
        )
        (warning,) = [one for one in estimate(study).warnings if "confirm asks for" in one]
        return warning

    whole, part = unpaid(1.0), unpaid(0.5)
    assert whole.count("pays for") == 1
    assert whole.endswith("; lower top or seeds, or search more.")
    assert "; share 1 pays for " in part


@pytest.mark.parametrize("strategy", ["freeze_thaw", "asha", "hyperband", "median"])
@pytest.mark.parametrize("rows", [40, 112, 160, 240, 1000])
@pytest.mark.parametrize("batches", [[8], [16], [4, 32]])
@pytest.mark.parametrize("warmup", [0.0, 0.03, 0.2])
def test_at_every_rung_every_trial_has_taken_a_step_after_its_warmup(
    strategy: str, rows: int, batches: list[int], warmup: float
) -> None:
    """The first step has a learning rate of 0: there all trials would have the loss of the untouched base model."""
    space = {"learning_rate": RATE, "effective_batch": {"choices": batches}, "warmup_ratio": warmup}
    point = {"learning_rate": 1e-3, "effective_batch": batches[0]}
    study = resolved(space=space, baseline=point, train_rows=rows, search={"strategy": strategy})
    for batch in batches:
        parameters = Parameters(effective_batch=batch, warmup_ratio=warmup)
        total = total_steps(rows, batch)
        for rung in study.trial_rungs(parameters):
            taken = min(total, total_steps(rung, batch))
            rates = [learning_rate(parameters, step, total) for step in range(taken)]
            assert max(rates) > 0 or taken == total


def test_rungs_of_freeze_thaw_lie_closer_and_outside_the_warmup() -> None:
    assert resolved().ladder == (60, 102, 173, 295, 501, 1000)
    warm = {"learning_rate": RATE, "warmup_ratio": {"low": 0.0, "high": 0.2}}
    assert resolved(space=warm).ladder[0] == 220


def test_without_pruning_evaluations_are_spread_evenly() -> None:
    assert resolved(search={"strategy": "none"}).ladder == (1000,)
    assert resolved(search={"strategy": "none", "evaluations": 4}).ladder == (250, 500, 750, 1000)
    assert resolved(search={"strategy": "none", "evaluations": 4}, train_rows=2).ladder == (1, 2)


def test_a_deterministic_study_runs_one_slice_at_a_time() -> None:
    assert resolved(search={"deterministic": True}).budget.max_parallel == 1
    assert resolved().budget.max_parallel > 100


def test_paths_and_settings_reach_the_trial() -> None:
    study = resolved(training={"seed": 7}, model={"path": "m", "dtype": "bfloat16"})
    trial = study.trial_spec(Parameters())
    assert (trial.model.path, trial.model.dtype, trial.data.train, trial.training.seed) == ("/m", "bfloat16", "/t", 7)


def test_extending_keeps_the_ladder_and_refuses_what_shrinks() -> None:
    study = resolved(preset="standard")
    grown = study.extend({"epochs": {"choices": [1, 2, 3, 4]}}, {"max_trials": 40})
    assert grown.ladder == study.ladder
    assert grown.budget.max_trials == 40
    assert grown.trial_rungs(Parameters(epochs=4)) == (*study.ladder, 4000)
    with pytest.raises(InvalidSpec, match="must repeat"):
        study.extend({"epochs": {"choices": [1, 2]}}, {})
    with pytest.raises(InvalidSpec) as caught:
        study.extend({}, {"max_trial": 40})
    assert caught.value.problems[0].pointer == "/budget/max_trial"


def test_each_strategy_can_be_built() -> None:
    assert build(resolved(search={"strategy": "asha", "reduction_factor": 4})) == Asha(4)
    assert build(resolved(search={"strategy": "median", "startup_trials": 5})) == Median(5)
    assert isinstance(build(resolved(search={"strategy": "none"})), NoPruning)
    assert isinstance(build(resolved()), FreezeThaw)


def test_the_estimate() -> None:
    full = estimate(resolved(search={"strategy": "none"}, budget={"max_trials": 10}))
    assert (full.expected_examples, full.full_examples, full.slices, full.expected_share) == (10_000, 10_000, 10, 1.0)
    asha = estimate(resolved(budget={"max_trials": 27}, search={"strategy": "asha"}))
    assert 0.2 < asha.expected_share < 0.4
    assert estimate(resolved(budget={"max_trials": 27, "max_examples": 1500})).expected_examples == 1500


@pytest.mark.parametrize("strategy", ["freeze_thaw", "asha", "successive_halving", "hyperband", "median", "none"])
def test_the_estimate_resembles_a_simulation(strategy: str) -> None:
    """Of two ranges: a single one has room for few trials where it is best, and freeze_thaw trains paused ones on."""
    study = resolved(
        space={"learning_rate": RATE, "warmup_ratio": {"low": 0, "high": 0.1}},
        baseline={"learning_rate": 1e-3, "warmup_ratio": 0.0},
        budget={"max_trials": 24},
        search={"strategy": strategy},
    )
    simulation = Simulation(study)
    simulation.run()
    assert estimate(study).expected_examples == pytest.approx(simulation.spent, rel=0.35)


def test_data_checks_reach_the_resolved_study() -> None:
    study = resolved(data_checks={"near_duplicates": {"fail": 0.9}, "secrets": "off"})
    assert (study.data_checks.near_duplicates.warn, study.data_checks.near_duplicates.fail) == (0.02, 0.9)
    assert study.data_checks.secrets.off
    assert not resolved(data_checks={"enabled": False}).data_checks.enabled


def test_several_gpus_share_adapters_of_the_largest_size() -> None:
    space = {
        "learning_rate": RATE,
        "lora_r": {"choices": [8, 16, 64]},
        "target_modules": {"choices": ["q_proj,v_proj", "o_proj,q_proj"]},
    }
    study = resolved(space=space, resources={"gpus_per_trial": 4}, training={"zero": {"offload_optimizer": True}})
    trial = study.trial_spec(Parameters(lora_r=8))
    assert (trial.training.ranks, trial.training.zero.max_lora_r) == (4, 64)
    assert trial.training.zero.target_modules == "o_proj,q_proj,v_proj"
    assert trial.training.zero.offload_optimizer
    with pytest.raises(InvalidSpec, match="share adapters of rank 64"):
        study.extend({"lora_r": {"choices": [8, 16, 64, 128]}}, {})
    assert study.extend({"lora_r": {"choices": [4, 8, 16, 64]}}, {}).training == study.training
    mixed = {**space, "target_modules": {"choices": ["attention", "q_proj"]}}
    assert resolved(space=mixed, resources={"gpus_per_trial": 2}).training.zero.target_modules == "all-linear"
    assert resolved(space=space).training.zero.max_lora_r is None


@pytest.mark.parametrize(
    ("sections", "pointer"),
    [
        ({"model": {"path": "m", "quantization": "nf4"}}, "/model/quantization"),
        ({"space": {"learning_rate": RATE, "use_dora": {"choices": [False, True]}}}, "/space/use_dora"),
        ({"space": {"learning_rate": RATE, "use_dora": True}}, "/space/use_dora"),
        ({"space": {"learning_rate": RATE, "init_lora_weights": "pissa"}}, "/space/init_lora_weights"),
        (
            {"space": {"learning_rate": RATE, "init_lora_weights": {"choices": ["default", "olora"]}}},
            "/space/init_lora_weights",
        ),
        ({"training": {"ranks": 4}}, "/training/ranks"),
        ({"training": {"zero": {"max_lora_r": 4}}}, "/training/zero/max_lora_r"),
    ],
)
def test_what_several_gpus_cannot_do(sections: dict[str, Any], pointer: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        resolved(**sections, resources={"gpus_per_trial": 2})
    assert [problem.pointer for problem in caught.value.problems] == [pointer]


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["2 * lora_r", "1e-4"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
KEYS = st.sampled_from(["low", "high", "log", "step", "choices", "expr", "when", "type"])
FORMS = JUNK | st.dictionaries(KEYS, JUNK, max_size=4)
SPACES = st.dictionaries(st.sampled_from([*Parameters.model_fields, "k", "a/b", ""]), FORMS, max_size=4)


@settings(max_examples=200, deadline=None)
@given(
    st.fixed_dictionaries(
        {"space": SPACES | JUNK},
        optional={
            "constraints": st.lists(st.text(max_size=10), max_size=2) | JUNK,
            "baseline": SPACES | JUNK,
            "enqueue": st.lists(SPACES, max_size=2) | JUNK,
            "search": JUNK,
            "budget": st.dictionaries(st.sampled_from(["max_trials", "deadline", "max_gpu_hours"]), JUNK),
        },
    )
)
def test_no_document_does_more_than_fail_politely(sections: dict[str, Any]) -> None:
    with suppress(InvalidSpec):
        resolved(**{"preset": "quick", **sections})


def test_warnings_about_the_search() -> None:
    parallel = resolved(search={"deterministic": True}, budget={"max_parallel": 4})
    assert any("slices in parallel" in warning for warning in estimate(parallel).warnings)
