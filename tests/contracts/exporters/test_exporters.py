"""Every export is read by the program that it is for, and every value survives."""

import json
import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig
from ruamel.yaml import YAML
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, TrainingArguments, get_scheduler

from hpo_service.core.errors import InvalidRequest
from hpo_service.exporters import FORMATS, render
from hpo_service.exporters.document import StudyFacts, best_document
from hpo_service.search.best import Best, Confirmed, Improvement, Searched
from hpo_service.spec import parse_spec, resolve
from trainer.common.target_modules import target_modules
from trainer.spec import DataSpec, ModelSpec, Parameters, TrainingSettings, TrialFile
from trainer.training.lr_schedule import learning_rate


def document(**parameters: Any) -> TrialFile:
    return TrialFile(
        kind="BestParams",
        model=ModelSpec(path="models/base", dtype="float32"),
        data=DataSpec(train="train.jsonl"),
        parameters=Parameters(**parameters),
    )


READERS: dict[str, tuple[Callable[[str], Any], ...]] = {
    "yaml": (YAML(typ="safe", pure=True).load, yaml.safe_load),
    "json": (json.loads,),
}


@pytest.mark.parametrize("format", READERS)
@settings(deadline=None)
@given(
    learning_rate=st.floats(1e-12, 1.0, exclude_min=True),
    epsilon=st.floats(1e-300, 1.0),
    name=st.text(st.characters(codec="utf-8", exclude_categories=["C"])),
)
def test_the_document_comes_back_equal(format: str, learning_rate: float, epsilon: float, name: str) -> None:
    written = document(learning_rate=learning_rate, adam_epsilon=epsilon).model_copy(
        update={"metadata": {"name": name}}
    )
    text = render(format, written).text
    for read in READERS[format]:
        assert TrialFile.model_validate(read(text)) == written


@pytest.mark.parametrize("word", ["no", "On", "y", "1e-4", "2026-11-24", ".inf", "~", "0x10", "", "a: b", "# c"])
def test_old_yaml_readers_keep_text_as_text(word: str) -> None:
    text = render("yaml", document().model_copy(update={"metadata": {"name": word}})).text
    assert yaml.safe_load(text)["metadata"]["name"] == word


def test_numbers_have_no_exponent() -> None:
    for format in FORMATS:
        text = render(format, document(learning_rate=2e-5, adam_epsilon=1e-8)).text
        assert "e-0" not in text
    assert "learning_rate: 0.00002\n" in render("yaml", document(learning_rate=2e-5)).text


def test_transformers_reads_the_training_arguments(tmp_path: Any) -> None:
    parameters = Parameters(
        learning_rate=3.21e-5, effective_batch=24, warmup_ratio=0.1, weight_decay=0.01, epochs=1.5, adam_beta2=0.95
    )
    rendered = render("hf", document(**parameters.model_dump()))
    arguments = TrainingArguments(**json.loads(rendered.text), output_dir=str(tmp_path), use_cpu=True)
    assert arguments.learning_rate == parameters.learning_rate
    batch = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps
    assert batch == parameters.effective_batch
    assert arguments.get_warmup_steps(1000) == 100
    assert arguments.weight_decay == parameters.weight_decay
    assert arguments.num_train_epochs == parameters.epochs
    assert (arguments.adam_beta2, arguments.adam_epsilon) == (parameters.adam_beta2, parameters.adam_epsilon)
    assert arguments.max_grad_norm == parameters.max_grad_norm
    assert rendered.dropped == (
        "lora_r",
        "lora_alpha",
        "lora_dropout",
        "target_modules",
        "use_rslora",
        "use_dora",
        "init_lora_weights",
        "loraplus_lr_ratio",
        "max_length",
    )


def test_transformers_reads_noise_and_optimizer(tmp_path: Any) -> None:
    written = json.loads(render("hf", document(neftune_noise_alpha=5.0, optimizer="paged_adamw_8bit")).text)
    arguments = TrainingArguments(**written, output_dir=str(tmp_path), use_cpu=True)
    assert (arguments.neftune_noise_alpha, arguments.optim) == (5.0, "paged_adamw_8bit")
    assert "neftune_noise_alpha" not in json.loads(render("hf", document()).text)


def test_a_schedule_that_needs_steps_is_exported_where_the_rows_are_known(tmp_path: Any) -> None:
    parameters = Parameters(lr_scheduler="wsd", decay_ratio=0.2, warmup_ratio=0.1, effective_batch=10, epochs=2.0)
    made = document(**parameters.model_dump())
    unknown = render("hf", made)
    assert "lr_scheduler_type" not in json.loads(unknown.text)
    assert {"lr_scheduler", "decay_ratio"} <= set(unknown.dropped)
    known = render("hf", made.model_copy(update={"provenance": {"train_rows": 100}}))
    assert "lr_scheduler" not in known.dropped
    arguments = TrainingArguments(**json.loads(known.text), output_dir=str(tmp_path), use_cpu=True)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=parameters.learning_rate)
    schedule = get_scheduler(
        arguments.lr_scheduler_type,
        optimizer,
        num_warmup_steps=arguments.get_warmup_steps(20),
        num_training_steps=20,
        scheduler_specific_kwargs=json.loads(known.text)["lr_scheduler_kwargs"],
    )
    for step in range(20):
        assert schedule.get_last_lr()[0] == pytest.approx(learning_rate(parameters, step, 20), abs=1e-12)
        optimizer.step()
        schedule.step()


def test_what_belongs_to_model_and_data_is_named() -> None:
    made = document().model_copy(
        update={
            "model": ModelSpec(path="m", dtype="bfloat16", quantization="nf4"),
            "data": DataSpec(train="t", packing=True, learn="all"),
        }
    )
    for format in ("hf", "peft"):
        assert render(format, made).dropped[-4:] == ("max_length", "quantization", "packing", "learn")


@pytest.mark.parametrize("size", [1, 7, 8, 12, 17, 4096])
def test_the_effective_batch_is_exact(size: int) -> None:
    arguments = json.loads(render("hf", document(effective_batch=size)).text)
    assert arguments["per_device_train_batch_size"] * arguments["gradient_accumulation_steps"] == size
    assert arguments["per_device_train_batch_size"] <= TrainingSettings().micro_batch


@pytest.mark.parametrize(("scheduler", "warmup", "expected"), [
    ("cosine", 0.1, "cosine"),
    ("linear", 0.0, "linear"),
    ("constant", 0.0, "constant"),
    ("constant", 0.1, "constant_with_warmup"),
])  # fmt: skip
def test_schedulers_mean_the_same(scheduler: str, warmup: float, expected: str, tmp_path: Any) -> None:
    text = render("hf", document(lr_scheduler=scheduler, warmup_ratio=warmup)).text
    arguments = TrainingArguments(**json.loads(text), output_dir=str(tmp_path), use_cpu=True)
    assert arguments.lr_scheduler_type == expected


def test_a_warm_up_over_the_whole_run_stays_one(tmp_path: Any) -> None:
    text = render("hf", document(warmup_ratio=1.0)).text
    arguments = TrainingArguments(**json.loads(text), output_dir=str(tmp_path), use_cpu=True)
    assert arguments.get_warmup_steps(1000) == 1000


@pytest.mark.parametrize("alpha", [32.0, 11.5])
def test_peft_reads_the_adapter_config(alpha: float) -> None:
    text = render("peft", document(lora_r=8, lora_alpha=alpha, lora_dropout=0.05, target_modules="q_proj,v_proj")).text
    config = LoraConfig(**json.loads(text))
    assert (config.r, config.lora_alpha, config.lora_dropout) == (8, alpha, 0.05)
    assert set(config.target_modules or ()) == {"q_proj", "v_proj"}
    assert config.base_model_name_or_path == "models/base"


@pytest.mark.parametrize("init", ["default", "pissa", "olora"])
def test_peft_reads_the_variants(init: Any) -> None:
    rendered = render("peft", document(use_rslora=True, use_dora=True, init_lora_weights=init))
    config = LoraConfig(**json.loads(rendered.text))
    assert (config.use_rslora, config.use_dora) == (True, True)
    assert config.init_lora_weights == (True if init == "default" else init)
    assert not {"use_rslora", "use_dora", "init_lora_weights"} & set(rendered.dropped)
    assert {"loraplus_lr_ratio", "neftune_noise_alpha"} <= set(rendered.dropped)


@pytest.mark.parametrize("targets", ["all-linear", "attention", "mlp", "q_proj,down_proj"])
def test_peft_adapts_the_modules_that_the_trainer_does(targets: str) -> None:
    from peft import get_peft_model

    config = LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
    )
    model = LlamaForCausalLM(config)
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and name != "lm_head"]
    exported = LoraConfig(**json.loads(render("peft", document(target_modules=targets)).text))
    adapted = get_peft_model(model, exported)
    names = {name.removesuffix(".lora_A.default") for name, _ in adapted.named_modules() if name.endswith("A.default")}
    assert {name.removeprefix("base_model.model.") for name in names} == set(target_modules(linear, targets))


def test_an_unknown_format_names_the_known_ones() -> None:
    with pytest.raises(InvalidRequest, match="use one of yaml, json, env, hf, peft, trl, "):
        render("toml", document())


def exported(best: Best) -> TrialFile:
    spec = parse_spec({"metadata": {"name": "s"}, "preset": "quick", "model": {"path": "m"}, "data": {"train": "t"}})
    resolved = resolve(spec, model_path="m", train="t", eval=None, train_rows=100, eval_rows=10)
    return best_document(StudyFacts(name="s", seed=0), best, resolved, now=datetime(2026, 11, 24, tzinfo=UTC))


def test_provenance_says_where_the_values_come_from() -> None:
    improvement = Improvement(
        baseline_trial=0, examples=100, baseline_examples=100, baseline_loss=3.0, loss=2.0, relative=1 / 3
    )
    best = Best(
        trial_number=4, loss=2.0, examples=100, provisional=True, parameters=Parameters(lora_r=4).model_dump(),
        improvement=improvement,
    )  # fmt: skip
    made = exported(best)
    assert made.kind == "BestParams"
    assert made.parameters == Parameters(lora_r=4)
    assert made.provenance["trial"] == 4
    told = {"compared_loss": 2.0, "compared_seeds": 0, "compared_examples": 100, "baseline_loss": 3.0}
    assert made.provenance.items() >= {**told, "baseline_examples": 100}.items()
    assert made.provenance["date"] == "2026-11-24T00:00:00Z"
    assert "base_digest" not in made.provenance
    text = render("yaml", made).text
    assert text.startswith("# Trial 4 of study s: eval_loss 2.0 (provisional: not trained to its end)\n")
    assert math.isclose(yaml.safe_load(text)["provenance"]["loss"], 2.0)
    assert json.loads(render("hf", made).text)["run_name"] == "s-trial-4"


@pytest.mark.parametrize(
    ("examples", "second_line"),
    [
        (100, "# In the search, with seed 0: eval_loss 1.9 at its end; that is what a run of this file repeats"),
        (40, "# In the search, with seed 0: eval_loss 1.9 after 40 of 100 examples"),
    ],
)
def test_a_confirmed_trial_tells_its_mean_and_what_a_run_of_the_file_repeats(examples: int, second_line: str) -> None:
    best = Best(
        trial_number=4, loss=2.0, examples=100, provisional=False, parameters=Parameters().model_dump(),
        improvement=None, confirmed=Confirmed(trial_number=4, mean=2.0, spread=0.01, seeds=3),
        searched=Searched(loss=1.9, examples=examples),
    )  # fmt: skip
    made = exported(best)
    known = made.provenance
    assert (known["confirmed_loss"], known["searched_loss"], known["searched_examples"]) == (2.0, 1.9, examples)
    assert "loss" not in known
    lines = render("yaml", made).text.splitlines()
    assert lines[:2] == ["# Trial 4 of study s: confirmed eval_loss 2.0, the mean over 3 new seeds", second_line]
