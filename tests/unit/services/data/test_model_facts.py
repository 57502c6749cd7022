"""What the API says of a model without loading it is what the trainer finds once it has: of many architectures."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from hpo_service.services.data import model_facts
from hpo_service.services.data.model_facts import read_facts
from hpo_service.services.data.profile import read_traits
from trainer.common.errors import UserError
from trainer.common.target_modules import target_modules
from trainer.model.base_model import linear_modules

EMPTY = Path(os.devnull)
_SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "head_dim": 8,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GPT2 = {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
_EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_DEEPSEEK = _EXPERTS | {
    "n_routed_experts": 4,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
}
_CHANGED: dict[str, dict[str, Any]] = {
    "codegen": _GPT2 | {"rotary_dim": 4},
    "deepseek_v2": _DEEPSEEK,
    "deepseek_v3": _DEEPSEEK,
    "falcon": {"head_dim": None},
    "glm4_moe": _DEEPSEEK,
    "gpt2": _GPT2,
    "gpt_bigcode": _GPT2,
    "gpt_neo": {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]},
    "gptj": _GPT2 | {"rotary_dim": 4},
    "granitemoe": _EXPERTS,
    "mixtral": _EXPERTS,
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2},
    "bloom": {"n_layer": 2, "n_head": 4},
    "olmoe": _EXPERTS,
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "qwen2_moe": _EXPERTS | {"shared_expert_intermediate_size": 24},
    "qwen3_moe": _EXPERTS,
    "gpt_oss": _EXPERTS,
}
_WANTED = (
    "all-linear",
    "attention",
    "mlp",
    "q_proj,v_proj",
    "qkv_proj",
    "c_attn",
    "query_key_value",
    "gate",
    "lm_head",
)
ARCHITECTURES = sorted(model_facts._DENSE | model_facts._ROUTERS.keys() | model_facts._WITHOUT_LINEAR)


def saved(folder: Path, kind: str, *, shard: str = "5GB", **changes: Any) -> Any:
    """A tiny model with random weights, as the trainer loads it from the folder."""
    fields = {**_SMALL, **_CHANGED.get(kind, {}), **changes}
    config = CONFIG_MAPPING[kind](**{name: value for name, value in fields.items() if value is not None})
    made: Any = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    made.save_pretrained(folder, max_shard_size=shard)
    return AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)


def judged(modules: Any, wanted: str) -> list[str] | str:
    try:
        return target_modules(modules, wanted)
    except UserError as error:
        return str(error)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_modules_are_those_of_the_loaded_model(tmp_path: Path, kind: str) -> None:
    loaded = linear_modules(saved(tmp_path, kind))
    facts = read_facts(tmp_path)
    assert (facts.architecture, facts.modules) == (kind, tuple(sorted(loaded)))
    for wanted in _WANTED:
        assert judged(facts.modules, wanted) == judged(loaded, wanted), wanted


@pytest.mark.parametrize(
    ("shard", "tied", "files"), [("5GB", True, 1), ("5GB", False, 1), ("20KB", True, 2), ("20KB", False, 2)]
)
def test_tied_embeddings_and_shards(tmp_path: Path, shard: str, tied: bool, files: int) -> None:
    loaded = linear_modules(saved(tmp_path, "qwen3", shard=shard, tie_word_embeddings=tied))
    assert len(list(tmp_path.glob("*.safetensors"))) >= files
    assert read_facts(tmp_path).modules == tuple(sorted(loaded))


@pytest.mark.parametrize("shard", ["5GB", "20KB"])
def test_the_same_weights_under_their_maker_s_names_do_not_count(tmp_path: Path, shard: str) -> None:
    saved(tmp_path, "mistral", shard=shard)
    modules, parameters = read_facts(tmp_path).modules, read_traits(tmp_path, EMPTY, 1).model_parameters
    header = json.dumps({"layers.0.attention.wq.weight": {"dtype": "BF16", "shape": [32, 32], "data_offsets": [0, 0]}})
    (tmp_path / "consolidated.safetensors").write_bytes(len(header).to_bytes(8, "little") + header.encode())
    assert read_facts(tmp_path).modules == modules
    assert read_traits(tmp_path, EMPTY, 1).model_parameters == parameters
    assert str(judged(modules, "wq")).startswith("target module 'wq' is not in the model")


def test_what_is_not_known_is_left_to_a_worker(tmp_path: Path) -> None:
    saved(tmp_path, "llama")
    config = tmp_path / "config.json"
    document = json.loads(config.read_text())
    for change in ({"model_type": "brand_new"}, {"quantization_config": {"quant_method": "gptq"}}, {"model_type": 3}):
        config.write_text(json.dumps(document | change))
        assert read_facts(tmp_path).modules is None
    config.write_text(json.dumps(document))
    (tmp_path / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    assert read_facts(tmp_path).modules is None


@pytest.mark.parametrize(
    ("config", "positions"),
    [
        ({"max_position_embeddings": 4096}, 4096),
        ({"n_positions": 1024}, 1024),
        ({}, None),
        ({"max_position_embeddings": "many"}, None),
        ({"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 4.0}}, 16384),
        ({"max_position_embeddings": 4096, "rope_scaling": {"rope_type": "dynamic", "factor": 2}}, 8192),
        (
            {
                "max_position_embeddings": 32768,
                "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
            },
            131072,
        ),
        (
            {
                "max_position_embeddings": 131072,
                "rope_parameters": {"rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096},
            },
            131072,
        ),
        (
            {
                "max_position_embeddings": 131072,
                "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192},
            },
            131072,
        ),
        ({"max_position_embeddings": 131072, "rope_scaling": {"type": "longrope", "long_factor": [1.0]}}, 131072),
        (
            {
                "max_position_embeddings": 4096,
                "rope_parameters": {
                    "full_attention": {"rope_type": "linear", "factor": 8.0},
                    "sliding_attention": {"rope_type": "default"},
                },
            },
            32768,
        ),
        ({"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 1e300}}, 4096),
        ({"max_position_embeddings": 4096, "rope_scaling": "linear"}, 4096),
    ],
)
def test_the_longest_row_reaches_as_far_as_stretched_positions(
    tmp_path: Path, config: dict[str, Any], positions: int | None
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_facts(tmp_path).positions == positions
