"""Every preset that ships: loads, resolves, samples, and its published default lies inside."""

import random

import pytest

from hpo_service.presets import PRESETS, load_preset
from hpo_service.spec import estimate
from tests.searching import resolved
from trainer.spec import Parameters


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_be_sampled(name: str) -> None:
    study = resolved(preset=name, train_rows=10_000)
    space, source = study.search_space(), random.Random(0)
    for _ in range(200):
        assignment = space.sample(lambda name, _distribution: space.spread(name, source.random()))
        assert space.feasible(assignment) is None
        assert space.decode(assignment.sampled) == assignment
        assert study.trial_rungs(assignment.parameters)[-1] == round(assignment.parameters.epochs * 10_000)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_its_published_default_as_a_complete_baseline(name: str) -> None:
    study = resolved(preset=name)
    assert study.baseline is not None
    space = study.search_space()
    parameters = space.decode(space.encode(study.baseline)).parameters
    published = load_preset(name).baseline
    assert published == {key: getattr(parameters, key, published[key]) for key in published}


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_explains_itself(name: str) -> None:
    preset = load_preset(name)
    assert preset.title
    assert preset.source.startswith(f"# {name}: ")
    assert "# Why" in preset.source or "# The paper" in preset.source
    assert set(preset.document) <= {"space", "constraints", "training", "search", "budget", "model"}
    assert "learning_rate" in preset.document["space"]


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "wide"])
def test_presets_follow_our_own_advice(name: str) -> None:
    assert estimate(resolved(preset=name, train_rows=10_000)).warnings == ()


def test_the_wide_preset_meets_the_published_alpha_at_rank_16() -> None:
    space = resolved(preset="wide").search_space()
    point = dict(space.encode({"lora_r": 256, "alpha_power": 0.5}))
    others = {name: space.spread(name, 0.0) for name in space.dimensions}
    assert space.decode(others | point).parameters.lora_alpha == 128
    assert Parameters().lora_alpha == 32
