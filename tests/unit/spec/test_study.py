"""Reading a posted spec: every mistake has a pointer, a sentence and, where there is a list, what is allowed."""

import json
from typing import Any

import pytest

from hpo_service.core.errors import InvalidSpec, Problem
from hpo_service.spec import StudySpec, parse_spec
from tests.searching import document


def problems(posted: object) -> list[Problem]:
    with pytest.raises(InvalidSpec) as caught:
        parse_spec(posted)
    return list(caught.value.problems)


def test_the_smallest_spec() -> None:
    spec = parse_spec(document(preset="quick"))
    assert (spec.search.strategy, spec.search.sampler, spec.resources.max_attempts) == ("freeze_thaw", "tpe", 3)


def test_numbers_that_yaml_left_as_text() -> None:
    spec = parse_spec(document(search={"first_rung_fraction": "1e-1"}, budget={"max_gpu_hours": "2.5"}))
    assert (spec.search.first_rung_fraction, spec.budget.max_gpu_hours) == (0.1, 2.5)


@pytest.mark.parametrize(
    ("sections", "pointer", "words"),
    [
        ({"trainig": {}}, "/trainig", "Did you mean 'training'?"),
        ({"search": {"sampelr": "tpe"}}, "/search/sampelr", "Did you mean 'sampler'?"),
        ({"model": {"path": "m", "dtyp": "bfloat16"}}, "/model/dtyp", "Did you mean 'dtype'?"),
        ({"search": {"strategy": "ahsa"}}, "/search/strategy", "Did you mean 'asha'?"),
        ({"budget": {"max_trials": 0}}, "/budget/max_trials", "is 0: it should be greater than or equal to 1"),
        ({"budget": {"deadline": "2030-01-01T00:00:00"}}, "/budget/deadline", "timezone"),
        ({"budget": {"deadline": "1900000000"}}, "/budget/deadline", "such as 2030-01-01T00:00:00Z"),
        ({"budget": {"deadline": 30}}, "/budget/deadline", "such as 2030-01-01T00:00:00Z"),
        ({"resources": {"gpus_per_trial": 1025}}, "/resources/gpus_per_trial", "less than or equal to 1024"),
        ({"data_checks": {"leakage": "fail"}}, "/data_checks/leakage", "Did you mean"),
        ({"metadata": {"name": "a b"}}, "/metadata/name", "'a b'"),
        ({"metadata": {}}, "/metadata/name", "name is required"),
        ({"space": []}, "/space", "mapping of keys"),
        ({"enqueue": [3]}, "/enqueue/0", "mapping of keys"),
        ({"kind": "Trial"}, "/kind", "should be 'Study'"),
        ({"apiVersion": "hpo/v2"}, "/apiVersion", "'hpo/v1'"),
        (
            {"search": {"deterministic": True}, "budget": {"max_cost_usd": 3}},
            "/budget/max_cost_usd",
            "depends on the clock",
        ),
        (
            {"search": {"strategy": "asha", "warm_start": ["earlier"]}},
            "/search/warm_start",
            "does not learn from others",
        ),
        (
            {"search": {"strategy": "asha", "stop_when": {"regret_below": 0.01}}},
            "/search/stop_when",
            "use strategy freeze_thaw",
        ),
        (
            {"search": {"strategy": "freeze_thaw", "stop_when": {"regret_below": 5}}},
            "/search/stop_when/regret_below",
            "less than 1",
        ),
        ({"search": {"objectives": ["cost_usd", "eval_loss"]}}, "/search/objectives", "write eval_loss first"),
        ({"search": {"objectives": ["eval_loss", "eval_loss"]}}, "/search/objectives", "name one twice"),
        (
            {"search": {"objectives": ["eval_loss", {"name": "cost_usd", "goal": "maximize"}]}},
            "/search/objectives/1",
            "leave out its goal",
        ),
        (
            {"search": {"strategy": "median", "objectives": ["eval_loss", "cost_usd"]}},
            "/search/objectives",
            "use freeze_thaw or asha",
        ),
        (
            {"search": {"deterministic": True, "objectives": ["eval_loss", "cost_usd"]}},
            "/search/objectives/1",
            "use adapter_parameters",
        ),
        (
            {
                "search": {
                    "strategy": "freeze_thaw",
                    "stop_when": {"regret_below": 0.1},
                    "objectives": ["eval_loss", "adapter_parameters"],
                }
            },
            "/search/stop_when",
            "remove it or the other objectives",
        ),
    ],
)
def test_mistakes(sections: dict[str, Any], pointer: str, words: str) -> None:
    (problem,) = problems(document(**sections))
    assert problem.pointer == pointer
    assert words in problem.detail


def test_allowed_values_are_listed() -> None:
    (problem,) = problems(document(search={"strategy": "hyperbnad"}))
    assert problem.allowed == ("freeze_thaw", "asha", "successive_halving", "hyperband", "median", "none")
    assert "Did you mean 'hyperband'?" in problem.detail
    (problem,) = problems(document(search={"pruner": "asha"}))
    assert "sampler" in problem.allowed


def test_everything_is_reported_at_once() -> None:
    pointers = [problem.pointer for problem in problems(document(budget={"max_trials": 0, "trials": 3}, extra=1))]
    assert pointers == ["/budget/max_trials", "/budget/trials", "/extra"]


@pytest.mark.parametrize("posted", [None, [], "study", 3])
def test_not_even_a_mapping(posted: object) -> None:
    with pytest.raises(InvalidSpec, match="a mapping of keys"):
        parse_spec(posted)


def test_the_schema_describes_every_field_of_ours() -> None:
    schema = StudySpec.model_json_schema(by_alias=True)
    json.dumps(schema)
    ours = {"StudySpec": schema, **schema["$defs"]}
    for model in ("StudySpec", "Metadata", "SearchSettings", "BudgetSettings", "Resources"):
        for name, field in ours[model]["properties"].items():
            assert "description" in field or "description" in ours[field["$ref"].split("/")[-1]], f"{model}.{name}"


def test_objectives_are_names_or_have_a_goal() -> None:
    written = ["eval_loss", {"name": "train_tokens_per_second", "goal": "maximize"}, {"name": "adapter_parameters"}]
    objectives = parse_spec(document(search={"objectives": written})).search.objectives
    assert [(one.name, one.goal) for one in objectives] == [
        ("eval_loss", "minimize"),
        ("train_tokens_per_second", "maximize"),
        ("adapter_parameters", "minimize"),
    ]
    assert [one.name for one in parse_spec(document()).search.objectives] == ["eval_loss"]
