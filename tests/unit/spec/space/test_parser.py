"""What a user may write for a space, and what every mistake is answered."""

from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from hpo_service.core.errors import InvalidSpec, Problem
from hpo_service.spec.space import SearchSpace
from tests.searching import RATE, space_of


def problems(*constraints: str, **parameters: Any) -> list[Problem]:
    with pytest.raises(InvalidSpec) as caught:
        space_of(*constraints, **parameters)
    return list(caught.value.problems)


def the_problem(*constraints: str, **parameters: Any) -> Problem:
    (problem,) = problems(*constraints, **parameters)
    return problem


@pytest.mark.parametrize(
    ("name", "form", "distribution"),
    [
        ("learning_rate", {"low": "1e-5", "high": "1e-3", "log": True}, FloatDistribution(1e-5, 1e-3, log=True)),
        ("warmup_ratio", {"low": 0, "high": 0.1, "step": 0.01}, FloatDistribution(0, 0.1, step=0.01)),
        ("warmup_ratio", {"low": 0, "high": 1}, FloatDistribution(0, 1)),
        ("lora_r", {"low": 4, "high": 64, "log": True}, IntDistribution(4, 64, log=True)),
        ("lora_r", {"low": 4, "high": 64, "step": 4}, IntDistribution(4, 64, step=4)),
        ("epochs", {"low": 1, "high": 3, "type": "int"}, IntDistribution(1, 3)),
        ("lora_r", {"choices": [64, 8, 32]}, IntDistribution(8, 64, log=True)),
        ("lora_dropout", {"choices": ["0", 0.05]}, FloatDistribution(0, 0.05)),
        ("learning_rate", {"choices": [1e-4, 3e-4, 1e-3]}, FloatDistribution(1e-4, 1e-3, log=True)),
        ("epochs", {"choices": [1, 2, 3]}, FloatDistribution(1, 3)),
        ("epochs", {"choices": [1, 2, 4]}, FloatDistribution(1, 4, log=True)),
        ("effective_batch", {"choices": [8]}, IntDistribution(8, 8)),
        ("effective_batch", {"choices": [8, 12]}, IntDistribution(8, 12)),
        ("effective_batch", {"choices": [8, 16]}, IntDistribution(8, 16, log=True)),
        ("lora_r", {"choices": [8, 16], "type": "categorical"}, CategoricalDistribution((8, 16))),
        ("lr_scheduler", {"choices": ["cosine", "linear"]}, CategoricalDistribution(("cosine", "linear"))),
        ("use_dora", {"choices": [False, True]}, CategoricalDistribution((False, True))),
    ],
)
def test_forms(name: str, form: dict[str, Any], distribution: Any) -> None:
    assert space_of(**{name: form}).distributions() == {name: distribution}


@pytest.mark.parametrize(
    ("parameters", "pointer", "words"),
    [
        ({"learing_rate": RATE}, "/space/learing_rate", "Did you mean 'learning_rate'?"),
        ({"learning_rate": {"low": 1e-3, "high": 1e-5}}, "/space/learning_rate/low", "swap them"),
        ({"learning_rate": {"low": 1e-3, "high": 1e-3}}, "/space/learning_rate/low", "write the bare value"),
        ({"weight_decay": {"low": 0, "high": 1, "log": True}}, "/space/weight_decay/low", "needs low > 0"),
        ({"learning_rate": {"low": 0, "high": 1e-3}}, "/space/learning_rate/low", "should be greater than 0"),
        ({"lora_dropout": {"low": 0, "high": 1.5}}, "/space/lora_dropout/high", "should be less than 1"),
        ({"lora_dropout": {"low": 0, "high": 0.5, "step": 0.2}}, "/space/lora_dropout/step", "it ends at 0.4"),
        ({"lora_r": {"low": 1, "high": 4.5}}, "/space/lora_r/high", "should be a valid integer"),
        ({"lora_r": {"low": 1}}, "/space/lora_r", "lacks high"),
        ({"lora_r": {"low": 1, "high": 8, "logg": True}}, "/space/lora_r/logg", "Did you mean 'log'?"),
        ({"lora_r": {"low": 1, "high": 8, "log": "yes"}}, "/space/lora_r/log", "must be true or false"),
        ({"lora_r": {"low": 1, "high": 8, "log": True, "step": 2}}, "/space/lora_r/step", "both log and step"),
        ({"lora_r": {"low": float("nan"), "high": 8}}, "/space/lora_r/low", "not a number"),
        ({"lora_r": {"low": 10**400, "high": 8}}, "/space/lora_r/low", "not a number"),
        ({"lora_r": {"choices": []}}, "/space/lora_r/choices", "1 to 100"),
        ({"lora_r": {"choices": list(range(1, 102))}}, "/space/lora_r/choices", "1 to 100"),
        ({"lora_r": {"choices": [8, 8.0]}}, "/space/lora_r/choices", "twice"),
        ({"lora_r": {"choices": [8, True]}}, "/space/lora_r/choices", "not a number"),
        ({"lora_r": [8, 16]}, "/space/lora_r", "write {choices"),
        ({"lora_r": None}, "/space/lora_r", "no value"),
        ({"lora_alpha": "2 * lora_r", "lora_r": {"choices": [8, 16]}}, "/space/lora_alpha", "write {expr"),
        ({"lr_scheduler": {"low": 0, "high": 1}}, "/space/lr_scheduler", "takes words"),
        ({"lr_scheduler": {"choices": ["cosine", "step"]}}, "/space/lr_scheduler/choices", "'constant' or 'wsd'"),
        ({"use_dora": {"choices": ["yes", False]}}, "/space/use_dora/choices", "neither true nor false"),
        ({"use_dora": {"choices": [0, 1]}}, "/space/use_dora/choices", "neither true nor false"),
        ({"use_dora": {"low": 0, "high": 1}}, "/space/use_dora", "takes true or false"),
        ({"use_dora": {"value": True, "low": 1}}, "/space/use_dora/low", "Unknown key"),
        ({"lora_r": {"expr": "2 *"}}, "/space/lora_r/expr", "invalid syntax"),
        ({"lora_r": {"expr": "2 * rank"}}, "/space/lora_r/expr", "reads 'rank', which does not exist"),
        ({"learning_rate": 1e-4}, "/space", "nothing varies"),
        ({"max": RATE}, "/space/max", "cannot name a parameter"),
        ({"a/b": RATE}, "/space/a~1b", "cannot name a parameter"),
        ({"epochs": {"low": 1, "high": 2, "when": {"lora_r": [8]}}}, "/space/epochs/when", "not in the space"),
        ({"lora_dropout": {"low": 0, "high": 0.9, "step": 1e-9}}, "/space/lora_dropout/step", "leave step out"),
        ({"lora_dropout": {"low": 0, "high": 0.9, "step": 1e-300}}, "/space/lora_dropout/step", "leave step out"),
    ],
)  # fmt: skip
def test_mistakes(parameters: dict[str, Any], pointer: str, words: str) -> None:
    problem = the_problem(**parameters)
    assert problem.pointer == pointer
    assert words in problem.detail


def test_everything_that_is_wrong_is_reported_at_once() -> None:
    found = problems("foo < 3", lora_r={"low": 8, "high": 1}, epochs=0, learning_rat=RATE)
    assert [problem.pointer for problem in found] == [
        "/space/lora_r/low",
        "/space/epochs",
        "/space/learning_rat",
        "/constraints/0",
    ]


def test_a_cycle_is_shown_as_a_path() -> None:
    problem = the_problem(
        learning_rate=RATE,
        lora_r={"expr": "lora_alpha"},
        lora_alpha={"expr": "max(epochs, 1)"},
        epochs={"expr": "lora_r"},
    )
    assert "epochs → lora_r → lora_alpha → epochs" in problem.detail


def test_a_condition_that_never_holds() -> None:
    space = {"lr_scheduler": "cosine", "warmup_ratio": {"low": 0, "high": 0.1, "when": {"lr_scheduler": ["linear"]}}}
    assert "would never be used" in the_problem(learning_rate=RATE, **space).detail


def test_constraints_that_leave_nothing() -> None:
    problem = the_problem("lora_r > 100", lora_r={"choices": [8, 16]})
    assert problem.pointer == "/space"
    assert "no point of this space can be trained" in problem.detail


def test_too_many_parameters() -> None:
    with pytest.raises(InvalidSpec, match="1 to 64"):
        SearchSpace.parse({f"p{index}": RATE for index in range(65)}, [], {})


def test_a_helper_name_reaches_the_trainer_through_an_expression() -> None:
    space = space_of(lora_r={"choices": [8, 16]}, ratio={"choices": [1, 2]}, lora_alpha={"expr": "ratio * lora_r"})
    assignment = space.assignment({"lora_r": 16, "ratio": 2})
    assert assignment.parameters.lora_alpha == 32
    assert assignment.sampled == {"lora_r": 16, "ratio": 2}


def test_facts_are_names_too() -> None:
    space = space_of(effective_batch={"choices": [4, 8]}, warmup_ratio={"expr": "10 * effective_batch / train_rows"})
    assert space.assignment({"effective_batch": 8}).parameters.warmup_ratio == 0.08
