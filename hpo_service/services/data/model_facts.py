"""What the API knows of a model without any library that could load it: modules for adapters, and the longest row.

Names and shapes of the weights say which linear layers there are, but for what only the architecture's code knows: that
GPT-2 has none, that the experts of a mixture are one tensor in memory. So modules are known of the architectures below,
where a test compares them with the model as the trainer loads it; of any other a worker finds out.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpo_service.services.data.weights import Shapes, read_shapes
from hpo_service.spec.runnable import ModelFacts
from trainer.common.model_files import CONFIG, positions_of

_WEIGHT = ".weight"
_NOT_LINEAR = frozenset(
    {
        *("embed_tokens", "embed_in", "embed_positions", "word_embeddings", "wte", "wpe"),
        *("lm_head", "embed_out"),
    }
)
_DENSE = frozenset(
    {
        *("apertus", "arcee", "bloom", "codegen", "cohere", "cohere2", "ernie4_5", "exaone4", "falcon", "gemma"),
        *("gemma2", "gemma3_text", "glm", "glm4", "gpt_bigcode", "gpt_neo", "gpt_neox", "gptj", "granite", "helium"),
        *("hunyuan_v1_dense", "llama", "ministral", "ministral3", "mistral", "mpt", "nemotron", "olmo", "olmo2"),
        *("olmo3", "opt", "phi", "phi3", "qwen2", "qwen3", "seed_oss", "smollm3", "stablelm", "starcoder2"),
    }
)
#: mixtures of experts, with what their blocks call the router; experts and routers hold no adapter
_ROUTERS = {
    "mixtral": ".block_sparse_moe.gate",
    "granitemoe": ".block_sparse_moe.router.layer",
    "gpt_oss": ".mlp.router",
    **dict.fromkeys(("qwen2_moe", "qwen3_moe", "olmoe", "deepseek_v2", "deepseek_v3", "glm4_moe"), ".mlp.gate"),
}
_EXPERTS = ".experts."
#: architectures whose layers are not linear modules (GPT-2's are `Conv1D`)
_WITHOUT_LINEAR = frozenset({"gpt2"})


def read_facts(model: Path) -> ModelFacts:
    """Of a model folder that was checked."""
    config = json.loads((model / CONFIG).read_text("utf-8"))
    kind = config.get("model_type")
    architecture = kind if isinstance(kind, str) else ""
    return ModelFacts(
        architecture=architecture[:80],
        modules=_modules(architecture, config, model),
        positions=positions_of(config),
        experts=architecture in _ROUTERS,
    )


def _modules(architecture: str, config: Mapping[str, Any], model: Path) -> tuple[str, ...] | None:
    if architecture in _WITHOUT_LINEAR:
        return ()
    # Layers of a base that is quantized on disk are of other kinds, under other names.
    if config.get("quantization_config") or not (architecture in _DENSE or architecture in _ROUTERS):
        return None
    shapes = read_shapes(model)
    return None if not shapes else _linear(shapes, _ROUTERS.get(architecture)) or None


def _linear(shapes: Shapes, router: str | None) -> tuple[str, ...]:
    names = (name.removesuffix(_WEIGHT) for name, shape in shapes.items() if name.endswith(_WEIGHT) and len(shape) == 2)
    return tuple(
        sorted(
            name
            for name in names
            if name.rpartition(".")[2] not in _NOT_LINEAR
            and (router is None or not (name.endswith(router) or _EXPERTS in name))
        )
    )
