"""What other trainers and search tools call things: each is answered with the name here and the value converted."""

from typing import Any

import pytest

from hpo_service.core.errors import InvalidSpec
from hpo_service.spec import parse_spec
from hpo_service.spec.foreign_names import _NAMES
from hpo_service.spec.problems import _paths
from hpo_service.spec.space import SearchSpace
from hpo_service.spec.study import StudySpec
from tests.searching import document

BATCH = (
    "space.effective_batch: examples an optimizer step, which is the batch of one GPU × gradient accumulation × GPUs; "
    "training.micro_batch bounds what one GPU takes at once."
)
TARGETS = (
    "space.target_modules, one text: all-linear, attention, mlp, or module names joined by commas ('q_proj,v_proj')."
)


def space_problem(**parameters: Any) -> tuple[str, str]:
    with pytest.raises(InvalidSpec) as caught:
        SearchSpace.parse({"learning_rate": {"low": 1e-5, "high": 1e-3}, **parameters}, [], {})
    (problem,) = caught.value.problems
    return problem.pointer, problem.detail


@pytest.mark.parametrize(
    ("name", "detail"),
    [
        ("per_device_train_batch_size", f"'per_device_train_batch_size' is Hugging Face's name; here it is {BATCH}"),
        ("gradient_accumulation_steps", f"'gradient_accumulation_steps' is Hugging Face's name; here it is {BATCH}"),
        ("micro_batch_size", f"'micro_batch_size' is Axolotl's name; here it is {BATCH}"),
        ("num_train_epochs", "'num_train_epochs' is Hugging Face's name; here it is space.epochs."),
        ("lora_target_modules", f"'lora_target_modules' is Axolotl's name; here it is {TARGETS}"),
        ("lora_rank", "'lora_rank' is LLaMA-Factory's name; here it is space.lora_r."),
        ("r", "'r' is PEFT's name; here it is space.lora_r."),
    ],
)
def test_names_in_the_space(name: str, detail: str) -> None:
    assert space_problem(**{name: {"choices": [8, 16]}}) == (f"/space/{name}", detail)


@pytest.mark.parametrize(
    ("form", "key", "same"),
    [
        ({"min": 1e-5, "max": 1e-3}, "min", "{low: 1.0e-05, high: 0.001}"),
        ({"min": "1e-5", "max": 1e-3, "log": True}, "min", "{low: 1.0e-05, high: 0.001, log: true}"),
        ({"values": [1e-4, 3e-4]}, "values", "{choices: [0.0001, 0.0003]}"),
        (
            {"distribution": "log_uniform_values", "min": 1e-5, "max": 1e-3},
            "distribution",
            "{low: 1.0e-05, high: 0.001, log: true}",
        ),
        (
            {"distribution": "log_uniform", "min": -11.5, "max": -6.9},
            "distribution",
            "{low: 1.01e-05, high: 0.00101, log: true}",
        ),
        (
            {"distribution": "log_uniform", "min": 1e-5, "max": 1e-3},
            "distribution",
            "{low: 1.0e-05, high: 0.001, log: true}",
        ),
        ({"distribution": "q_uniform", "min": 0, "max": 1, "q": 0.1}, "distribution", "{low: 0, high: 1, step: 0.1}"),
        (
            {"parameterType": "double", "feasibleSpace": {"min": "0.1", "max": "0.5"}},
            "parameterType",
            "{low: 0.1, high: 0.5}",
        ),
    ],
)
def test_forms_are_written_as_they_are_here(form: dict[str, Any], key: str, same: str) -> None:
    pointer, detail = space_problem(weight_decay=form)
    assert pointer == f"/space/weight_decay/{key}"
    assert detail.endswith(f" in the form of weight_decay; write weight_decay: {same}.")


def test_a_form_that_cannot_be_converted_says_what_forms_there_are() -> None:
    assert space_problem(epochs={"suggest_float": [1, 3]}) == (
        "/space/epochs/suggest_float",
        "`suggest_float` is another tool's name in the form of epochs; write {low, high, log, step}, {choices: […]} or "
        "a value.",
    )


@pytest.mark.parametrize(
    ("written", "same"),
    [
        ("tune.loguniform(1e-5, 1e-3)", "{low: 1.0e-05, high: 0.001, log: true}"),
        ("trial.suggest_float", None),
        ("suggest_float('weight_decay', 0, 0.1)", "{low: 0, high: 0.1}"),
        ("uniform(0, 0.1)", "{low: 0, high: 0.1}"),
        ("choice([0.0, 0.1])", "{choices: [0.0, 0.1]}"),
        ("uniform(a, b)", "{low, high, log, step}, {choices: […]} or a value"),
    ],
)
def test_calls_of_search_tools(written: str, same: str | None) -> None:
    detail = space_problem(weight_decay=written)[1]
    if same is None:
        assert "another tool" not in detail
    else:
        assert (
            detail.partition("It looks like another tool's call; write ")[2].removeprefix("weight_decay: ")
            == f"{same}."
        )


def test_lists_of_modules_are_one_text() -> None:
    assert space_problem(target_modules=["q_proj", "v_proj"])[1] == (
        "target_modules is a bare list; write {choices: […]}, or 'q_proj,v_proj' for adapters on all of them at once."
    )
    assert space_problem(optimizer="adamw_torch")[1].endswith("'adamw' or 'paged_adamw_8bit'. Did you mean 'adamw'?")
    assert "'q_proj,v_proj'" in space_problem(target_modules={"choices": [["q_proj", "v_proj"], "all-linear"]})[1]


def test_a_form_under_a_foreign_name_is_converted_with_it() -> None:
    with pytest.raises(InvalidSpec) as caught:
        SearchSpace.parse({"lora_rank": {"values": [8, 16]}, "lora_target": ["q_proj", "v_proj"]}, [], {})
    assert [problem.detail for problem in caught.value.problems][:2] == [
        "`values` is another tool's name in the form of lora_rank; write lora_r: {choices: [8, 16]}.",
        "lora_target is a bare list; write {choices: […]}, or 'q_proj,v_proj' for adapters on all of them at once.",
    ]


def test_an_expression_that_reads_one() -> None:
    assert space_problem(lora_alpha={"expr": "2 * r"}) == (
        "/space/lora_alpha/expr",
        "expression '2 * r' reads 'r', which does not exist. 'r' is PEFT's name; here it is space.lora_r.",
    )


def test_a_helper_quantity_of_that_name_is_none_of_ours_to_refuse() -> None:
    space = SearchSpace.parse(
        {
            "per_device_train_batch_size": {"choices": [1, 2, 4]},
            "effective_batch": {"expr": "8 * per_device_train_batch_size"},
        },
        [],
        {},
    )
    assert space.largest("effective_batch") == 32


@pytest.mark.parametrize(
    ("sections", "pointer", "detail"),
    [
        (
            {"parameters": {}},
            "/parameters",
            "'parameters' is W&B's name; here it is space, name by name: {low, high, log, step}, {choices: […]} or a "
            "value.",
        ),
        ({"n_trials": 20}, "/n_trials", "'n_trials' is Optuna's name; here it is budget.max_trials."),
        (
            {"training": {"output_dir": "out"}},
            "/training/output_dir",
            "'output_dir' is Hugging Face's name; there is nothing to say: the service keeps snapshots and results "
            "itself; leave it out.",
        ),
        (
            {"data": {"train": "t", "cutoff_len": 512}},
            "/data/cutoff_len",
            "'cutoff_len' is LLaMA-Factory's name; here it is data.max_length, in tokens.",
        ),
        ({"model": "m"}, "/model", "model is 'm': it should be a mapping of keys, such as {path: …}."),
        ({"max_trials": 3}, "/max_trials", "'max_trials' does not belong here; write budget.max_trials."),
        (
            {"learning_rate": 1e-4},
            "/learning_rate",
            "'learning_rate' does not belong here; write space.learning_rate.",
        ),
        (
            {"training": {"max_length": 99}},
            "/training/max_length",
            "'max_length' does not belong to training; write data.max_length.",
        ),
    ],
)
def test_keys_of_a_spec(sections: dict[str, Any], pointer: str, detail: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        parse_spec(document(**sections))
    assert [(problem.pointer, problem.detail) for problem in caught.value.problems] == [(pointer, detail)]


def test_what_is_recommended_exists() -> None:
    ours = set(_paths(StudySpec))
    for name, foreign in _NAMES.items():
        words = foreign.here.replace(",", " ").replace(":", " ").replace(";", " ").split()
        paths = {word.rstrip(".") for word in words if "." in word.rstrip(".") and word[0].isalpha()}
        assert paths <= ours, name
        assert name not in ours, f"{name} is a key of ours"
