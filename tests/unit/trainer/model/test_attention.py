"""Which attention runs where: `auto` never fails, whatever the architecture."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from trainer.common.errors import UserError
from trainer.data.token_cache import TokenCache
from trainer.model import attention
from trainer.model.attention import choose_attention
from trainer.model.base_model import BaseModel
from trainer.spec import ModelSpec, TrialSpec
from trainer.training.engines.resident import ResidentEngine

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
TINY: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 320,
    "max_position_embeddings": 512,
    **dict.fromkeys(("bos_token_id", "pad_token_id"), 0),
    "eos_token_id": 1,
}
HEADS = {"head_dim": 8}
WITH_HEADS = {"gemma", "gemma2", "gemma3_text", "gpt_oss", "mistral", "qwen3", "qwen3_moe"}


def config_of(architecture: str) -> Any:
    more: dict[str, Any] = HEADS if architecture in WITH_HEADS else {}
    few_experts: dict[str, Any] = (
        {"num_local_experts": 4, "num_experts_per_tok": 2} if architecture == "gpt_oss" else {}
    )
    build: Any = CONFIG_MAPPING[architecture]
    return build(**TINY, **more, **few_experts)


@pytest.mark.parametrize(
    ("architecture", "chosen"),
    [
        *((each, "sdpa") for each in ("llama", "qwen2", "qwen3", "qwen3_moe", "mistral", "mixtral", "phi3", "gemma")),
        *((each, "sdpa") for each in ("gemma3_text", "olmo2", "granite", "smollm3", "stablelm", "gpt_neox")),
        *((each, "eager") for each in ("gemma2", "gpt_oss")),
    ],
)
def test_auto_is_what_the_architecture_supports(architecture: str, chosen: str, tmp_path: Path) -> None:
    config_of(architecture).save_pretrained(tmp_path)
    assert choose_attention(ModelSpec(path=str(tmp_path), dtype="float32"), CPU) == chosen


@pytest.mark.parametrize("architecture", ["gemma2", "gpt_oss"])
def test_what_refuses_sdpa_trains(
    architecture: str, tmp_path: Path, base_folder: Path, make_spec: Any, token_cache: TokenCache
) -> None:
    shutil.copytree(base_folder, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.safetensors"))
    torch.manual_seed(1)
    build: Any = AutoModelForCausalLM.from_config
    build(config_of(architecture)).save_pretrained(tmp_path)
    spec: TrialSpec = make_spec(path=str(tmp_path))
    engine = ResidentEngine(BaseModel(spec.model, CPU), token_cache)
    trial = engine.admit(spec, None)
    steps = [next(engine.advance(trial, until)) for until in (8, 16)]
    assert engine.attention == "eager"
    assert all(0 < step.loss < 10 and step.gradient_norm > 0 for step in steps)


@pytest.mark.parametrize(
    ("refused", "chosen"),
    [((), "flash_attention_2"), (("flash_attention_2",), "sdpa"), (("flash_attention_2", "sdpa"), "eager")],
)
def test_flash_attention_goes_first_where_it_runs(
    refused: tuple[str, ...], chosen: str, base_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "is_flash_attn_2_available", lambda: True)
    monkeypatch.setattr(attention, "_runs", lambda config, each: each not in refused)
    spec = ModelSpec(path=str(base_folder), dtype="bfloat16")
    assert choose_attention(spec, CUDA) == chosen
    assert choose_attention(spec.model_copy(update={"dtype": "float32"}), CUDA) != "flash_attention_2"
    assert choose_attention(spec, CPU) != "flash_attention_2"


def test_what_was_asked_for_and_cannot_run_is_refused_with_the_remedy(tmp_path: Path) -> None:
    config_of("gemma2").save_pretrained(tmp_path)
    spec = ModelSpec(path=str(tmp_path), dtype="float32", attention="sdpa")
    with pytest.raises(UserError, match=r"model\.attention is sdpa, which gemma2 models do not support; use auto"):
        choose_attention(spec, CPU)
    assert choose_attention(spec.model_copy(update={"attention": "eager"}), CPU) == "eager"
    with pytest.raises(UserError, match="needs a CUDA device"):
        choose_attention(spec.model_copy(update={"attention": "flash_attention_2"}), CPU)


def test_a_folder_without_a_model_is_for_the_loader_to_refuse() -> None:
    assert choose_attention(ModelSpec(path="nowhere", dtype="float32"), CPU) == "sdpa"
