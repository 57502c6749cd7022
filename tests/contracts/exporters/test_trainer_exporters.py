"""Files for other trainers, read by their own parsers; by lists of their keys where these do not install beside ours.

Axolotl's and LLaMA-Factory's real parsers read the same files in `tests/full/foreign/test_parsers.py`.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from deepspeed.runtime.config import DeepSpeedConfig
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, TrainingArguments
from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig
from trl import DatasetMixtureConfig, ModelConfig, ScriptArguments, SFTConfig, TrlParser, get_peft_config

from hpo_service.exporters import render
from tests.exported import OTHER, document
from trainer.common.target_modules import target_modules
from trainer.spec import TrialFile

KEYS = Path(__file__).with_name("foreign_keys")
VARIED = st.fixed_dictionaries({}, optional={name: st.just(value) for name, value in OTHER.items()})


def read_by_trl(made: TrialFile, folder: Path) -> tuple[SFTConfig, ModelConfig]:
    """As `trl sft --config FILE` reads it; unknown keys are errors."""
    file = folder / "trl.yaml"
    file.write_text(render("trl", made).text)
    parser = TrlParser((ScriptArguments, SFTConfig, ModelConfig, DatasetMixtureConfig))
    arguments = ["--config", str(file), "--output_dir", str(folder / "out"), "--use_cpu", "true"]
    _, training, model, _ = parser.parse_args_and_config(arguments)
    return training, model


def test_trl_reads_every_value(tmp_path: Path) -> None:
    made = document(
        **{**OTHER, "lr_scheduler": "wsd", "loraplus_lr_ratio": 1.0, "optimizer": "adamw"},
        data={"max_length": 77, "format": "chat"},
        training={"seed": 11, "micro_batch": 5},
    )
    training, model = read_by_trl(made, tmp_path)
    parameters = made.parameters
    assert training.learning_rate == parameters.learning_rate
    assert training.per_device_train_batch_size * training.gradient_accumulation_steps == parameters.effective_batch
    assert training.per_device_train_batch_size <= 5
    assert training.get_warmup_steps(1000) == 100
    assert training.lr_scheduler_type == "warmup_stable_decay"
    assert training.lr_scheduler_kwargs == {"num_decay_steps": 2}
    assert (training.adam_beta1, training.adam_beta2, training.adam_epsilon) == (0.85, 0.95, 1e-6)
    assert (training.weight_decay, training.max_grad_norm, training.num_train_epochs) == (0.01, 0.3, 1.5)
    assert (training.optim, training.neftune_noise_alpha, training.seed) == ("adamw_torch", 5.0, 11)
    assert (training.max_length, training.packing, training.assistant_only_loss) == (77, False, True)
    assert (training.bf16, training.gradient_checkpointing) == (False, False)
    assert (model.model_name_or_path, model.dtype) == ("models/base", "float32")
    assert (model.lora_r, model.lora_alpha, model.lora_dropout) == (8, 64, 0.05)
    assert (model.use_peft, model.use_rslora, model.use_dora, model.load_in_4bit) == (True, True, True, False)


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(varied=VARIED)
def test_trl_takes_whatever_a_search_finds(varied: dict[str, Any], tmp_path: Path) -> None:
    training, model = read_by_trl(document(**varied), tmp_path)
    assert training.learning_rate == document(**varied).parameters.learning_rate
    assert model.lora_r == document(**varied).parameters.lora_r


@pytest.mark.parametrize("targets", ["all-linear", "attention", "mlp", "q_proj", "q_proj,down_proj"])
def test_trl_adapts_the_modules_that_the_trainer_does(targets: str, tmp_path: Path) -> None:
    base = LlamaForCausalLM(
        LlamaConfig(vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
    )
    linear = [name for name, module in base.named_modules() if isinstance(module, nn.Linear) and name != "lm_head"]
    config = get_peft_config(read_by_trl(document(target_modules=targets), tmp_path)[1])
    adapted: Any = get_peft_model(base, config)
    names = {name.removesuffix(".lora_A.default") for name, _ in adapted.named_modules() if name.endswith("A.default")}
    assert {name.removeprefix("base_model.model.") for name in names} == set(target_modules(linear, targets))


def test_trl_reads_a_quantized_base(tmp_path: Path) -> None:
    _, model = read_by_trl(document(model={"quantization": "nf4"}), tmp_path)
    assert (model.load_in_4bit, model.bnb_4bit_quant_type, model.use_bnb_nested_quant) == (True, "nf4", True)


@pytest.mark.parametrize("optimizer", ["adamw", "paged_adamw_8bit"])
def test_deepspeed_reads_the_configuration_that_transformers_completes(optimizer: str, tmp_path: Path) -> None:
    """The formats `hf` and `deepspeed` together: what is `auto` becomes what `hf` says."""
    made = document(
        **{**OTHER, "optimizer": optimizer},
        training={"zero": {"offload_optimizer": True, "config": {"stage3_prefetch_bucket_size": 1234}}},
    )
    arguments = TrainingArguments(
        **json.loads(render("hf", made).text) | {"optim": "adamw_torch"}, output_dir=str(tmp_path), use_cpu=True
    )
    config: Any = HfTrainerDeepSpeedConfig(  # type: ignore[no-untyped-call]
        json.loads(render("deepspeed", made).text)
    )
    config.trainer_config_process(arguments)
    config.config["zero_optimization"]["reduce_bucket_size"] = 16 * 16  # filled in once the model is known
    read = DeepSpeedConfig(config.config)
    parameters = made.parameters
    assert read.train_batch_size == parameters.effective_batch
    assert read.train_micro_batch_size_per_gpu * read.gradient_accumulation_steps == parameters.effective_batch
    assert read.gradient_clipping == parameters.max_grad_norm
    assert read.zero_config.stage == 3
    assert read.zero_config.offload_optimizer.device == "cpu"
    assert read.zero_config.prefetch_bucket_size == 1234
    if optimizer == "adamw":
        assert read.optimizer_name == "adamw"
        assert read.optimizer_params == {
            "lr": parameters.learning_rate,
            "betas": [parameters.adam_beta1, parameters.adam_beta2],
            "eps": parameters.adam_epsilon,
            "weight_decay": parameters.weight_decay,
        }
    else:
        assert read.optimizer_name is None
        assert read.zero_allow_untested_optimizer is True


@pytest.mark.parametrize(("format", "keys"), [
    ("axolotl", "axolotl-0.19.0.txt"),
    ("llamafactory", "llamafactory-0.9.5.txt"),
])  # fmt: skip
@pytest.mark.parametrize("change", [
    {}, OTHER, {"lr_scheduler": "wsd"}, {"init_lora_weights": "pissa"}, {"model": {"quantization": "nf4"}},
    {"data": {"eval": "eval.jsonl", "format": "alpaca", "packing": True}}, {"data": {"format": "sharegpt"}},
])  # fmt: skip
def test_every_key_is_one_that_the_trainer_knows(format: str, keys: str, change: dict[str, Any]) -> None:
    known = set((KEYS / keys).read_text().split())
    written = yaml.safe_load(render(format, document(**change)).text)
    assert written.keys() <= known


def test_axolotl_gets_the_rows_and_the_prompt_of_the_trainer() -> None:
    made = document(data={"train": "/d/train.jsonl", "eval": "/d/eval.parquet", "format": "alpaca"})
    written = yaml.safe_load(render("axolotl", made).text)
    (train,), (held_out,) = written["datasets"], written["test_datasets"]
    assert (train["path"], train["ds_type"]) == ("/d/train.jsonl", "json")
    assert (held_out["path"], held_out["ds_type"]) == ("/d/eval.parquet", "parquet")
    assert train["type"]["no_input_format"].format(instruction="say") == "### Instruction:\nsay\n\n### Response:\n"
    assert written["val_set_size"] == 0


def test_llamafactory_gets_other_names_for_the_same() -> None:
    made = document(**{**OTHER, "init_lora_weights": "pissa"}, data={"max_length": 77, "learn": "all"})
    written = yaml.safe_load(render("llamafactory", made).text)
    assert (written["lora_rank"], written["lora_alpha"], written["lora_target"]) == (8, 64, "q_proj,v_proj")
    assert (written["pissa_init"], written["pissa_iter"], written["loraplus_lr_ratio"]) == (True, -1, 4.0)
    assert (written["cutoff_len"], written["train_on_prompt"], written["warmup_ratio"]) == (77, True, 0.1)
