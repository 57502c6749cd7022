"""Sampling and extending a space, known points of it."""

import json
import random
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution, check_distribution_compatibility

from hpo_service.core.errors import InvalidSpec
from hpo_service.spec.space import FloatRange, Infeasible, SearchSpace, advice
from hpo_service.spec.space.forms import fewest_digits, read_form
from tests.searching import RATE, space_of

LARGE: dict[str, Any] = {
    "learning_rate": RATE,
    "lora_r": {"choices": [8, 16, 32]},
    "lora_alpha": {"expr": "2 * lora_r"},
    "lr_scheduler": {"choices": ["cosine", "constant"]},
    "warmup_ratio": {"low": 0, "high": 0.1, "step": 0.02, "when": {"lr_scheduler": ["cosine"]}},
    "effective_batch": {"low": 4, "high": 32, "step": 4},
    "epochs": 2,
}


SPACE = space_of(**LARGE)


def spread(space: SearchSpace, seed: int) -> Any:
    source = random.Random(seed)
    return space.sample(lambda name: space.spread(name, source.random()))


def test_a_trip_through_json_with_its_keys_shuffled() -> None:
    space = space_of("lora_r < 32 or effective_batch < 16", **LARGE)
    stored = json.loads(json.dumps(space.to_json(), sort_keys=True))
    assert SearchSpace.from_json(stored) == space
    assert SearchSpace.from_json(stored).order == space.order


def test_conditions_and_derived_values() -> None:
    space = space_of(**LARGE)
    point = {"learning_rate": 1e-4, "lora_r": 32, "lr_scheduler": "constant", "effective_batch": 8, "warmup_ratio": 0.1}
    assignment = space.assignment(point)
    assert "warmup_ratio" not in assignment.sampled
    assert assignment.parameters.warmup_ratio == 0.03
    assert assignment.parameters.lora_alpha == 64


def test_a_condition_on_an_unused_parameter_does_not_hold() -> None:
    space = space_of(
        lr_scheduler={"choices": ["cosine", "constant"]},
        warmup_ratio={"choices": [0.0, 0.03], "when": {"lr_scheduler": ["cosine"]}},
        weight_decay={"choices": [0.1, 0.2], "when": {"warmup_ratio": [0.03]}},
    )
    assert space.assignment({"lr_scheduler": "constant"}).sampled == {"lr_scheduler": "constant"}
    assert set(space.assignment({"lr_scheduler": "cosine", "warmup_ratio": 0.03, "weight_decay": 0.1}).sampled) == {
        "lr_scheduler",
        "warmup_ratio",
        "weight_decay",
    }


def test_constraints_are_reported_with_their_values() -> None:
    space = space_of("lora_r * effective_batch <= 256", **LARGE)
    point = {"learning_rate": 1e-4, "lora_r": 32, "lr_scheduler": "constant", "effective_batch": 32}
    reason = space.feasible(space.assignment(point))
    assert reason is not None
    assert "effective_batch=32, lora_r=32" in reason


def test_a_derived_value_that_the_trainer_refuses_is_infeasible() -> None:
    space = space_of(lora_alpha={"low": 1, "high": 64}, lora_r={"expr": "lora_alpha / 4 // 1"})
    with pytest.raises(Infeasible, match="greater than or equal to 1"):
        space.assignment({"lora_alpha": 2.0})
    halves = space_of(lora_alpha={"choices": [2, 3]}, lora_r={"expr": "lora_alpha / 2"})
    with pytest.raises(Infeasible, match=r"use round\(\)"):
        halves.assignment({"lora_alpha": 3})


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**6))
def test_what_is_sampled_is_a_point_and_lies_in_what_tables_and_samplers_are_told(seed: int) -> None:
    assignment = spread(SPACE, seed)
    assert SPACE.point(assignment.sampled) == assignment.sampled
    assert SPACE.assignment(assignment.sampled) == assignment
    for name, value in assignment.sampled.items():
        form = SPACE.dimension(name)
        assert form.distribution()._contains(form.distribution().to_internal_repr(value))
        assert form.positions()._contains(form.positions().to_internal_repr(form.position(value)))
        assert form.at(form.position(value)) == value


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(1, 1024), min_size=1, max_size=20, unique=True),
    st.lists(st.integers(1, 1024), min_size=1, max_size=8, unique=True),
)
def test_choices_grow_where_optunas_tables_let_them(old: list[int], new: list[int]) -> None:
    space = space_of(learning_rate=RATE, lora_r={"choices": old})
    added = [value for value in new if value < min(old) or value > max(old)]
    grown = SearchSpace.from_json(space.extend({"lora_r": {"choices": old + added}}).to_json())
    check_distribution_compatibility(space.distributions()["lora_r"], grown.distributions()["lora_r"])
    assert [grown.dimension("lora_r").at(index) for index in range(len(old + added))] == sorted(old + added)
    for value in (*old, *added):
        assert grown.point({"lora_r": value}) == {"lora_r": value}


@pytest.mark.parametrize(
    ("choices", "more", "words"),
    [
        ([1, 2, 3], [0.5, 1, 2, 3], "0.5 cannot join the choices of k, which are whole numbers; clone"),
        ([1, 4, 16], [0, 1, 4, 16], "0 cannot join the choices of k, which are on a log scale; clone"),
    ],
)
def test_choices_that_optunas_tables_would_refuse(choices: list[float], more: list[float], words: str) -> None:
    with pytest.raises(InvalidSpec, match=words):
        space_of(k={"choices": choices}, lora_alpha={"expr": "k + 1"}).extend({"k": {"choices": more}})


def test_fractions_stay_fractions_when_whole_numbers_join() -> None:
    space = space_of(k={"choices": [1.0, 2.5]}, lora_alpha={"expr": "k + 1"})
    grown = space.extend({"k": {"choices": [1, 2.5, 4]}})
    check_distribution_compatibility(space.distributions()["k"], grown.distributions()["k"])
    assert grown.distributions()["k"] == FloatDistribution(1, 4, log=True)


@settings(max_examples=200, deadline=None)
@given(
    st.floats(-1e3, 1e3, allow_subnormal=False),
    st.floats(1e-9, 1e3),
    st.floats(0, 1, allow_subnormal=False),
    st.booleans(),
)
def test_what_is_sampled_of_a_range_is_short_and_inside(low: float, width: float, share: float, log: bool) -> None:
    low, high = (abs(low) + 1e-9, abs(low) + 1e-9 + width) if log else (low, low + width)
    assume(low < high)
    form = read_form("k", {"low": low, "high": high, "log": log, "type": "float"})
    assert isinstance(form, FloatRange)
    assert form.digits is not None
    value = form.spread(share)
    assert low <= value <= high
    assert value in (low, high) or float(f"{value:.{form.digits - 1}e}") == value
    assert form.at(value) == value, "what was sampled once is not moved again"


@pytest.mark.parametrize(
    ("low", "high", "digits"),
    [(1e-5, 1e-2, 3), (0.0, 0.2, 3), (-1.0, 1.0, 3), (1e-4, 2e-4, 4), (1.0, 2.0, 4), (0.9, 0.999, 5)],
)
def test_so_many_digits_leave_a_thousand_values(low: float, high: float, digits: int) -> None:
    assert fewest_digits(low, high) == digits
    if low > 0:
        form = FloatRange(low=low, high=high, digits=digits)
        assert len({form.spread(index / 20_000) for index in range(20_001)}) >= 990


def test_only_what_is_sampled_without_a_step_is_rounded() -> None:
    space = space_of(learning_rate=RATE, warmup_ratio={"low": 0, "high": 0.1, "step": 0.02})
    assert space.point({"learning_rate": 0.000123456}) == {"learning_rate": 0.000123456}
    assert space.spread("learning_rate", 0.3333) == float(f"{space.spread('learning_rate', 0.3333):.2e}")
    stepped = space.dimension("warmup_ratio")
    assert isinstance(stepped, FloatRange)
    assert stepped.digits is None
    older = space.to_json()
    del older["parameters"]["learning_rate"]["digits"]
    kept = SearchSpace.from_json(older).extend({"learning_rate": {"high": 0.1}})
    assert kept.spread("learning_rate", 0.3333) != float(f"{kept.spread('learning_rate', 0.3333):.2e}")
    assert space.extend({"learning_rate": {"high": 0.1}}).spread("learning_rate", 0.3333) == pytest.approx(
        2.15e-4, abs=0
    )


@pytest.mark.parametrize(
    ("point", "words"),
    [
        ({"learning_rate": 1.0}, "not between 1e-05 and 0.01"),
        ({"lora_r": 12}, "12 is none of 8, 16, 32"),
        ({"lora_r": "many"}, "is not a number"),
        ({"effective_batch": 6}, "multiple of 4"),
        ({"warmup_ratio": 0.03, "lr_scheduler": "cosine"}, "multiple of 0.02"),
        ({"warmup_ratio": 0.02, "lr_scheduler": "constant"}, "not used at this point"),
        ({"lora_r": 8, "lora_alpha": 32}, "disagrees with the space, where it is 16"),
        ({"lora_alpha": 32}, "leave it out"),
        ({"epochs": 1}, "disagrees with the space, where it is 2"),
        ({"weight_decay": 0.1}, "add it to the space"),
        ({"lorar": 8}, "Did you mean 'lora_r'?"),
        ({"lr_scheduler": "cosin"}, "is none of cosine, constant"),
    ],
)
def test_points_outside_the_space(point: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        space_of(**LARGE).point(point, "/baseline")
    (problem,) = caught.value.problems
    assert words in problem.detail
    assert problem.pointer in [f"/baseline/{name}" for name in point]


def test_points_that_agree() -> None:
    point = {"learning_rate": "1e-4", "lora_r": 16.0, "lora_alpha": 32, "epochs": 2, "weight_decay": 0}
    assert space_of(**LARGE).point(point) == {"learning_rate": 1e-4, "lora_r": 16}


def test_a_complete_point_must_fulfil_the_constraints() -> None:
    space = space_of("lora_r < 16", lora_r={"choices": [8, 16]})
    with pytest.raises(InvalidSpec, match="does not hold for lora_r=16"):
        space.point({"lora_r": 16})


def test_ranges_grow() -> None:
    space = space_of(**LARGE).extend({"learning_rate": {"low": 1e-6}, "effective_batch": {"high": 64}})
    assert space.point({"learning_rate": 2e-6, "effective_batch": 64}) == {
        "learning_rate": 2e-6,
        "effective_batch": 64,
    }
    assert space.forms["warmup_ratio"].when == {"lr_scheduler": ("cosine",)}


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("learning_rate", {"low": 1e-4}, "cannot become"),
        ("learning_rate", {"low": 1e-6, "log": False}, "clone"),
        ("learning_rate", {"low": 0}, "needs low > 0"),
        ("learning_rate", {"choices": [1e-4]}, "clone"),
        ("learning_rate", 1e-4, "clone"),
        ("effective_batch", {"low": 2}, "off its grid|does not lead"),
        ("lora_r", {"choices": [8, 16]}, "must repeat 8, 16, 32"),
        ("lora_r", {"choices": [8, 12, 16, 32]}, "not in between"),
        ("lora_r", {"low": 1, "high": 8}, "clone"),
        ("lr_scheduler", {"choices": ["cosine", "constant", "linear"]}, "clone"),
        ("epochs", {"low": 1, "high": 2}, "clone"),
        ("weight_decay", {"low": 0, "high": 1}, "not in the space of this study; clone"),
    ],
)
def test_other_changes_need_a_clone(name: str, change: Any, words: str) -> None:
    with pytest.raises(InvalidSpec, match=words) as caught:
        space_of(**LARGE).extend({name: change})
    assert caught.value.problems[0].pointer.startswith(f"/space/{name}")


def test_the_largest_value() -> None:
    space = space_of(lora_r={"choices": [8, 16]}, epochs={"expr": "lora_r / 4"}, effective_batch={"low": 1, "high": 99})
    assert (space.largest("epochs"), space.largest("effective_batch"), space.largest("lora_r")) == (4, 99, 16)
    assert space.largest("max_grad_norm") == 1


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"learning_rate": {"low": 1e-7, "high": 1e-4, "log": True}}, "1e-6 to 5e-3"),
        ({"lora_r": {"choices": [4, 64]}, "lora_alpha": {"expr": "2 * lora_r"}}, "separates them"),
        ({"lora_r": {"choices": [4, 512]}}, "above 256"),
        ({"effective_batch": {"choices": [8, 256]}}, "above 128"),
        ({"effective_batch": {"choices": [8, 64]}}, "only 16 optimizer steps (1000 rows)"),
        ({"learning_rate": RATE, "lora_r": {"choices": [8]}}, "one choice"),
    ],
)
def test_advice(parameters: dict[str, Any], words: str) -> None:
    assert any(words in sentence for sentence in advice(space_of(**parameters), 24))


def test_no_advice_for_an_ordinary_space() -> None:
    ordinary = {"learning_rate": {"low": 5e-5, "high": 1e-3, "log": True}, "effective_batch": 8, "epochs": 1}
    assert advice(space_of(**ordinary), 8) == []


def test_advice_when_little_of_the_space_can_be_trained() -> None:
    space = space_of("warmup_ratio < 0.1", warmup_ratio={"low": 0, "high": 1})
    assert any("of the space can be trained" in sentence for sentence in advice(space, 8))


def test_true_and_false_are_categories_and_conditions() -> None:
    space = space_of(
        "not use_dora or lora_r <= 8",
        lora_r={"choices": [8, 16]},
        use_dora={"choices": [False, True]},
        init_lora_weights={"value": "pissa", "when": {"use_dora": [False]}},
        use_rslora={"expr": "lora_r > 8"},
    )
    stored = SearchSpace.from_json(json.loads(json.dumps(space.to_json())))
    assert stored == space
    dora = stored.assignment({"lora_r": 8, "use_dora": True})
    plain = stored.assignment({"lora_r": 16, "use_dora": False})
    assert (dora.parameters.use_dora, dora.parameters.init_lora_weights) == (True, "default")
    assert (plain.parameters.init_lora_weights, plain.parameters.use_rslora) == ("pissa", True)
    assert space.point({"use_dora": True, "lora_r": 8}) == {"lora_r": 8, "use_dora": True}
    assert "does not hold" in str(space.feasible(space.assignment({"lora_r": 16, "use_dora": True})))
    assert space.values("use_dora") == {True, False}
