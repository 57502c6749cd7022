"""A search space as a unit cube, there and back."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo_service.search.strategies.freeze_thaw.cube import Cube
from hpo_service.spec.space import Categories, FloatRange, IntRange, NumberChoices
from tests.searching import RATE, space_of, unrounded

GRADED = [
    FloatRange(low=0, high=1, step=0.1),
    FloatRange(low=-0.25, high=0.5, step=0.25),
    IntRange(low=3, high=17),
    IntRange(low=0, high=64, step=8),
    IntRange(low=1, high=300, log=True),
    NumberChoices(values=(4, 8, 16, 64)),
    NumberChoices(values=(0, 0.05, 0.1)),
    Categories(values=("cosine", "linear", "constant")),
    Categories(values=(True, False)),
]
SMOOTH = [FloatRange(low=-2, high=3), FloatRange(low=1e-5, high=1e-2, log=True)]

MIXED: dict[str, Any] = {
    "learning_rate": RATE,
    "lora_r": {"choices": [4, 8, 16]},
    "lora_alpha": {"expr": "2 * lora_r"},
    "effective_batch": {"low": 1, "high": 40, "log": True},
    "lr_scheduler": {"choices": ["cosine", "linear", "constant"]},
    "warmup_ratio": {"low": 0, "high": 0.1, "when": {"lr_scheduler": ["cosine"]}},
}
CUBE = Cube(unrounded(space_of(**MIXED)))
SHARE = st.floats(0, 1, allow_subnormal=False)


@pytest.mark.parametrize("form", GRADED, ids=str)
def test_every_value_comes_back_from_its_share(form: Any) -> None:
    values = {form.spread(share) for share in np.linspace(0, 1, 4001)}
    assert len(values) == form.levels()
    assert {form.spread(form.share(value)) for value in values} == values
    assert all(0 < form.share(value) < 1 for value in values)


@pytest.mark.parametrize("form", SMOOTH, ids=str)
@given(share=SHARE)
def test_every_share_comes_back_from_its_value(form: Any, share: float) -> None:
    assert form.share(form.spread(share)) == pytest.approx(share, abs=1e-9)


def test_a_share_outside_the_range_is_cut() -> None:
    assert FloatRange(low=0, high=1).share(2.0) == 1.0


@given(point=st.tuples(*[SHARE] * len(CUBE.names)))
def test_a_snapped_point_is_where_its_assignment_is(point: tuple[float, ...]) -> None:
    (snapped,) = CUBE.snap(np.array([point]))
    found = CUBE.assignment(snapped)
    assert found is not None
    located = CUBE.locate(found.sampled)
    used = ~np.isnan(located)
    assert located[used] == pytest.approx(snapped[used], abs=1e-9)
    assert set(np.array(CUBE.names)[~used]) <= {"warmup_ratio"}
    assert CUBE.snap(snapped[None])[0] == pytest.approx(snapped)


def test_derived_parameters_have_no_coordinate_and_unused_ones_no_value() -> None:
    located = dict(
        zip(CUBE.names, CUBE.locate({"learning_rate": 1e-5, "lora_r": 16, "lr_scheduler": "linear"}), strict=True)
    )
    assert "lora_alpha" not in located
    assert (located["learning_rate"], located["lora_r"], located["lr_scheduler"]) == (0.0, pytest.approx(5 / 6), 0.5)
    assert math.isnan(located["warmup_ratio"])


def test_a_point_that_breaks_a_constraint_stands_for_nothing() -> None:
    cube = Cube(space_of("lora_r > 4", lora_r={"choices": [4, 8]}))
    assert cube.assignment(np.array([0.2])) is None
    found = cube.assignment(np.array([0.7]))
    assert found is not None
    assert found.parameters.lora_r == 8


def test_categories_lie_at_distance_one_from_each_other() -> None:
    cube = Cube(space_of(lr_scheduler={"choices": ["cosine", "linear", "constant"]}))
    points = np.array([cube.locate({"lr_scheduler": word}) for word in ("cosine", "linear", "constant")])
    features = cube.features(points)
    gaps = np.linalg.norm(features[:, None] - features[None], axis=-1)
    assert gaps == pytest.approx(1 - np.eye(3))


def test_an_unused_parameter_lies_in_the_middle_at_distance_one() -> None:
    used = {"learning_rate": 1e-3, "lora_r": 4, "effective_batch": 8, "lr_scheduler": "cosine"}
    points = np.array([CUBE.locate({**used, "warmup_ratio": ratio}) for ratio in (0.0, 0.05, 0.1)])
    unused = points[1].copy()
    unused[CUBE.names.index("warmup_ratio")] = np.nan
    features = CUBE.features(np.array([*points, unused]))
    gaps = np.linalg.norm(features[:3] - features[3], axis=-1)
    assert gaps == pytest.approx([math.hypot(0.5, 1), 1, math.hypot(0.5, 1)])


def test_every_feature_belongs_to_a_dimension() -> None:
    features = CUBE.features(np.full((1, len(CUBE.names)), 0.5))
    assert len(CUBE.groups) == features.shape[1]
    assert set(CUBE.groups.tolist()) == set(range(len(CUBE.names)))


def test_the_layout_outlives_a_wider_range_only() -> None:
    grown = Cube(CUBE.space.extend({"learning_rate": {"high": 0.1}}))
    assert grown.layout == CUBE.layout
    assert Cube(space_of(**(MIXED | {"lora_r": 8}))).layout != CUBE.layout
