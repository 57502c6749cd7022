"""Every preset that ships: loads, resolves, samples, and its published default lies inside."""

import random

import pytest

from hpo_service.spec import Traits, estimate, parse_spec, resolve
from hpo_service.spec.points import completed
from hpo_service.spec.presets import PRESETS, load_preset
from tests.searching import document, resolved
from trainer.spec import Parameters


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_be_sampled(name: str) -> None:
    study = resolved(preset=name, train_rows=10_000)
    space, source = study.search_space(), random.Random(0)
    feasible = 0
    for _ in range(200):
        assignment = space.sample(lambda name: space.spread(name, source.random()))
        feasible += space.feasible(assignment) is None
        assert space.assignment(assignment.sampled) == assignment
        assert study.trial_rungs(assignment.parameters)[-1] == round(assignment.parameters.epochs * 10_000)
    assert feasible >= (170 if space.constraints else 200)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_its_published_default_as_a_complete_baseline(name: str) -> None:
    study = resolved(preset=name)
    assert study.baseline is not None
    space = study.search_space()
    parameters = space.assignment(space.point(study.baseline)).parameters
    published = load_preset(name).baseline
    assert published == {key: getattr(parameters, key, published[key]) for key in published}


@pytest.mark.parametrize("name", PRESETS)
def test_every_known_point_of_a_preset_lies_in_its_space_and_says_where_it_comes_from(name: str) -> None:
    preset, study = load_preset(name), resolved(preset=name)
    space = study.search_space()
    assert len(preset.portfolio) >= 2
    for known in preset.portfolio:
        assert known.source
        assert known.from_parameters < known.to_parameters
        point = completed(space, known.values, preset.baseline)
        parameters = space.assignment(space.point(point)).parameters.model_dump()
        assert {key: value for key, value in known.values.items() if parameters.get(key, value) != value} == {}
        assert point != study.baseline


@pytest.mark.parametrize("name", PRESETS)
def test_known_points_are_tried_after_the_baseline_up_to_a_third_of_the_trials(name: str) -> None:
    study = resolved(preset=name)
    most = study.budget.max_trials // 3
    assert 2 <= len(study.enqueue) <= most
    assert len({str(point) for point in (*study.enqueue, study.baseline)}) == len(study.enqueue) + 1
    assert resolved(preset=name, budget={"max_trials": 2}).enqueue == ()


def test_known_points_depend_on_the_size_of_the_model_and_come_after_the_users() -> None:
    spec = parse_spec(document(preset="quick", enqueue=[{"learning_rate": 4e-4}]))
    files = {"model_path": "/m", "train": "/t", "eval": None, "train_rows": 1000, "eval_rows": 100}
    rates = []
    for parameters in (1_000_000_000, 70_000_000_000):
        traits = Traits(architecture="LlamaForCausalLM", model_parameters=parameters, row_bytes=100.0)
        study = resolve(spec, **files, traits=traits)  # type: ignore[arg-type]
        rates.append([point["learning_rate"] for point in study.enqueue])
    assert rates == [[4e-4, 5e-4, 1e-3], [4e-4, 3e-4, 1e-4]]


def test_known_points_outside_the_users_space_are_left_out() -> None:
    narrow = {"learning_rate": {"low": 1e-4, "high": 4e-4, "log": True}}
    assert resolved(preset="quick", space=narrow).enqueue == ({"learning_rate": 3e-4}, {"learning_rate": 1e-4})


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_explains_itself(name: str) -> None:
    preset = load_preset(name)
    assert preset.title
    assert preset.source.startswith(f"# {name}: ")
    assert "# Why" in preset.source or "# The paper" in preset.source
    assert set(preset.document) <= {"space", "constraints", "training", "search", "budget", "model", "resources"}
    assert "learning_rate" in preset.document["space"]


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "wide"])
def test_presets_follow_our_own_advice(name: str) -> None:
    assert estimate(resolved(preset=name, train_rows=10_000)).warnings == ()


def wide_point(**values: object) -> Parameters:
    space = resolved(preset="wide").search_space()
    point = space.point(values)
    others = {name: space.spread(name, 0.0) for name in space.dimensions}
    return space.assignment(others | point).parameters


@pytest.mark.parametrize(("variant", "alpha"), [("lora", 32), ("rslora", 8), ("dora", 32), ("pissa", 32)])
def test_the_variants_of_the_wide_preset_are_one_choice(variant: str, alpha: float) -> None:
    parameters = wide_point(variant=variant, lora_r=16)
    assert parameters.lora_alpha == alpha
    assert alpha / (4 if parameters.use_rslora else 16) == 2
    assert (parameters.use_rslora, parameters.use_dora) == (variant == "rslora", variant == "dora")
    assert parameters.init_lora_weights == ("pissa" if variant == "pissa" else "default")


def test_the_wide_preset_bounds_the_learning_rate_of_pissa_and_the_use_of_loraplus() -> None:
    space = resolved(preset="wide").search_space()
    assert {probe.sampled["variant"]: "loraplus_lr_ratio" in probe.sampled for probe in space.probes} == {
        "lora": True,
        "rslora": True,
        "dora": False,
        "pissa": False,
    }
    fast = space.assignment({**space.point(resolved(preset="wide").baseline or {}), "variant": "pissa"} | {
        "learning_rate": 1e-3
    })  # fmt: skip
    assert "does not hold" in (space.feasible(fast) or "")


def test_what_the_presets_of_large_models_ask_of_the_hardware() -> None:
    qlora, large = resolved(preset="qlora"), resolved(preset="large-zero3")
    assert qlora.model.quantization == "nf4"
    assert qlora.search_space().probes[0].parameters.optimizer == "paged_adamw_8bit"
    assert (large.training.ranks, large.training.zero.max_lora_r) == (8, 32)
