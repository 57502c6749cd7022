"""How much device memory a trial needs, from numbers alone: the formulas, without torch.

They follow what autograd keeps of a decoder with frozen weights (Llama's block: two norms, attention, a gated MLP), in
the order in which it is freed. A frozen linear layer keeps nothing; every adapter on one keeps its float32 input.
Predictions are of tensors that are alive; what an allocator wastes is covered by the reserve.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainer.common.target_modules import target_modules
from trainer.spec import ModelSpec, TrialSpec

_FLOAT = 4
#: AdamW's two moments of a float32 parameter; in 8 bit with a float32 scale for every 256 of them
_MOMENT_BYTES = {"adamw": 8.0, "paged_adamw_8bit": 2 * (1 + 4 / 256)}
#: 4 bits, an 8-bit scale for every 64 weights, a float32 scale for every 256 of those
_NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
#: logits at the peak of the loss: log-softmax, its gradient, and the gradient of what it came from, all float32
_LOSS_BYTES = 12
#: float32 copies of a layer's widest activation that are alive while it is differentiated, and while it is computed
_WIDE_TEMPORARIES = 3
_WIDE_TEMPORARIES_FORWARD = 4
#: bytes an attention score that eager attention needs while it is computed
_EAGER_BYTES = 20
#: with DoRA the base weight, its product with the adapter and the sum are alive in float32
_DORA_TEMPORARIES = 3


@dataclass(frozen=True)
class Architecture:
    """What the prediction needs to know of a base model; sizes in elements.

    `linears` maps the full name of every linear layer but the output head to (input, output) features;
    `logits_everywhere` is set for models whose head cannot be applied to chosen tokens only.
    """

    parameters: int
    vocabulary: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    linears: Mapping[str, tuple[int, int]]
    logits_everywhere: bool = False

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Architecture":
        """From a model's `config.json`, as if its layers were Llama's."""
        hidden, layers, heads = (
            int(config[key]) for key in ("hidden_size", "num_hidden_layers", "num_attention_heads")
        )
        kv_heads = int(config.get("num_key_value_heads") or heads)
        head_size = int(config.get("head_dim") or hidden // heads)
        intermediate = int(config.get("intermediate_size") or 4 * hidden)
        vocabulary = int(config["vocab_size"])
        shapes = {
            "self_attn.q_proj": (hidden, heads * head_size),
            "self_attn.k_proj": (hidden, kv_heads * head_size),
            "self_attn.v_proj": (hidden, kv_heads * head_size),
            "self_attn.o_proj": (heads * head_size, hidden),
            "mlp.gate_proj": (hidden, intermediate),
            "mlp.up_proj": (hidden, intermediate),
            "mlp.down_proj": (intermediate, hidden),
        }
        linears = {f"model.layers.{layer}.{name}": shape for layer in range(layers) for name, shape in shapes.items()}
        embeddings = vocabulary * hidden * (1 if config.get("tie_word_embeddings", False) else 2)
        norms = (2 * layers + 1) * hidden
        return cls(
            parameters=sum(inputs * outputs for inputs, outputs in linears.values()) + embeddings + norms,
            vocabulary=vocabulary,
            hidden=hidden,
            intermediate=intermediate,
            layers=layers,
            heads=heads,
            kv_heads=kv_heads,
            head_size=head_size,
            linears=linears,
        )


@dataclass(frozen=True)
class BatchSize:
    """The heaviest batch: `rows` of `length` tokens with padding, of which `learned` tokens enter the loss."""

    rows: int
    length: int
    learned: int

    @property
    def tokens(self) -> int:
        """Tokens with padding."""
        return self.rows * self.length


@dataclass(frozen=True)
class MemoryPrediction:
    """Bytes on one device, by what they are for.

    `base` stays for the worker's life; `resting` (adapter and optimizer) for as long as the trial is resident;
    `training` and `evaluation` are what a step and an evaluation batch need on top.
    """

    base: int
    resting: int
    training: int
    evaluation: int

    @property
    def transient(self) -> int:
        """What the trial needs on top of what it rests on, while it has its turn."""
        return max(self.training, self.evaluation)

    @property
    def total(self) -> int:
        """The peak with no other trial on the device."""
        return self.base + self.resting + self.transient


def predict_memory(
    architecture: Architecture, spec: TrialSpec, *, attention: str, train: BatchSize, evaluation: BatchSize
) -> MemoryPrediction:
    """The peak of one rank of a trial.

    `attention` is the implementation that runs; `train` the heaviest micro-batch, `evaluation` the heaviest
    evaluation batch.
    """
    ranks, zero = spec.training.ranks, spec.training.zero
    trained, frozen = _adapter_parameters(architecture, spec)
    on_host = ranks > 1 and zero.offload_optimizer
    moments = 0.0 if on_host else _MOMENT_BYTES[spec.parameters.optimizer] * trained
    weights = 0 if on_host else _FLOAT * (trained + frozen)
    base = base_bytes(architecture, spec.model)
    layer_weights = base / max(1, architecture.layers)
    gathered = 2 * layer_weights + _FLOAT * trained if ranks > 1 else 0
    single_pass = spec.parameters.effective_batch <= train.rows * ranks
    gradients = _FLOAT * trained // ranks
    training = _training_bytes(architecture, spec, attention, train, gradients=gradients, once=single_pass)
    return MemoryPrediction(
        base=0 if ranks > 1 and zero.offload_parameters else int(base / ranks),
        resting=int((weights + moments) / ranks),
        training=int(training + gathered),
        evaluation=int(_evaluation_bytes(architecture, spec, attention, evaluation) + gathered),
    )


def base_bytes(architecture: Architecture, model: ModelSpec) -> float:
    """The frozen weights of the whole model. Only linear layers are quantized."""
    element = _element_bytes(model)
    linear = sum(inputs * outputs for inputs, outputs in architecture.linears.values())
    rest = architecture.parameters - linear
    return rest * element + linear * (_NF4_BYTES if model.quantization == "nf4" else element)


def _adapter_parameters(architecture: Architecture, spec: TrialSpec) -> tuple[int, int]:
    """(trained, frozen) elements of the adapter as it is allocated."""
    parameters, zero = spec.parameters, spec.training.zero
    sharded = spec.training.ranks > 1
    rank = max(parameters.lora_r, zero.max_lora_r or 0) if sharded else parameters.lora_r
    wanted = (zero.target_modules if sharded else None) or parameters.target_modules
    targets = _targets(architecture, wanted)
    pair = sum(rank * (inputs + outputs) for inputs, outputs in targets.values())
    magnitudes = sum(outputs for _, outputs in targets.values()) if parameters.use_dora else 0
    return pair + magnitudes, 0 if parameters.init_lora_weights == "default" else pair


def _training_bytes(
    architecture: Architecture, spec: TrialSpec, attention: str, batch: BatchSize, *, gradients: int, once: bool
) -> float:
    """The peak of forward and backward: where the loss is differentiated, or where the last layer is.

    Gradients are there from the start unless the step has a single micro-batch (`once`); then they grow while
    activations are freed.
    """
    element = _element_bytes(spec.model)
    block = _block_bytes(architecture, element, attention, batch.length, packed=spec.data.packing)
    layer = batch.tokens * (block + _inputs_bytes(architecture, spec))
    wide = _WIDE_TEMPORARIES * _FLOAT * max(architecture.intermediate, architecture.hidden)
    work = batch.tokens * wide + _weight_work_bytes(architecture, spec)
    kept = architecture.layers * (batch.tokens * element * architecture.hidden if _recomputes(spec) else layer)
    kept += batch.tokens * _FLOAT * architecture.hidden
    loss: float = batch.learned * architecture.vocabulary * _LOSS_BYTES
    if architecture.logits_everywhere:
        loss += 2 * batch.tokens * architecture.vocabulary * element
    held = 0 if once else gradients
    if _recomputes(spec):
        return kept + max(held + max(loss, layer + work), gradients + layer + work)
    return max(held + kept + max(loss, work), gradients + layer + work)


def _evaluation_bytes(architecture: Architecture, spec: TrialSpec, attention: str, batch: BatchSize) -> float:
    """A forward pass keeps the stream and one layer's work; the loss keeps logits and a float32 copy or two."""
    element = _element_bytes(spec.model)
    wide = _WIDE_TEMPORARIES_FORWARD + int(spec.parameters.use_dora or spec.parameters.init_lora_weights != "default")
    targets = _targets(architecture, spec.parameters.target_modules).values()
    widest = max(max(inputs, outputs) for inputs, outputs in targets)
    work = 2 * element * architecture.hidden
    work += max(4 * element * architecture.intermediate, wide * _FLOAT * widest)
    if attention == "eager":
        work = max(work, _EAGER_BYTES * architecture.heads * batch.length)
    logits = batch.learned * architecture.vocabulary * (element + _FLOAT + (0 if element == _FLOAT else _FLOAT))
    if architecture.logits_everywhere:
        logits += batch.tokens * architecture.vocabulary * element
    layer = batch.tokens * work + _weight_work_bytes(architecture, spec)
    return max(layer, logits + batch.tokens * element * architecture.hidden)


def _block_bytes(architecture: Architecture, element: int, attention: str, length: int, *, packed: bool) -> float:
    """Bytes a token that one layer keeps for its backward pass, inputs of adapters left out."""
    query = architecture.heads * architecture.head_size
    # Packing needs a mask, which every layer keeps, and with one keys and values are repeated for every query head.
    masked = packed and attention != "flash_attention_2"
    key_value = 2 * (query if masked else architecture.kv_heads * architecture.head_size)
    norms = 2 * _FLOAT * architecture.hidden
    kept = element * (2 * query + key_value) + _FLOAT * architecture.heads
    if masked:
        kept += element * length
    if attention == "eager":
        kept += architecture.heads * length * (_FLOAT + element)
    return norms + kept + 3 * element * architecture.intermediate


def _inputs_bytes(architecture: Architecture, spec: TrialSpec) -> float:
    """Bytes a token that an average layer's adapters keep: their inputs, dropout's masks, what A gives."""
    parameters, element = spec.parameters, _element_bytes(spec.model)
    own_input = element != _FLOAT or parameters.lora_dropout > 0
    kept = 0.0
    shared: set[tuple[str, int]] = set()
    for name, (inputs, outputs) in _targets(architecture, parameters.target_modules).items():
        place = (name.rpartition(".")[0], inputs)
        if own_input or place not in shared:
            kept += _FLOAT * inputs
        shared.add(place)
        kept += _FLOAT * parameters.lora_r + (_FLOAT * inputs if parameters.lora_dropout > 0 else 0)
        if parameters.use_dora:
            kept += _FLOAT * outputs
    return kept / max(1, architecture.layers)


def _weight_work_bytes(architecture: Architecture, spec: TrialSpec) -> float:
    """Bytes that do not depend on the batch: a weight that is dequantized, DoRA's norms."""
    largest = max((inputs * outputs for inputs, outputs in architecture.linears.values()), default=0)
    if spec.parameters.use_dora:
        return _DORA_TEMPORARIES * _FLOAT * largest
    return largest * _element_bytes(spec.model) if spec.model.quantization == "nf4" else 0


def _targets(architecture: Architecture, wanted: str) -> dict[str, tuple[int, int]]:
    return {name: architecture.linears[name] for name in target_modules(architecture.linears, wanted)}


def _element_bytes(model: ModelSpec) -> int:
    return 4 if model.resolved_dtype == "float32" else 2


def _recomputes(spec: TrialSpec) -> bool:
    return spec.training.activation_checkpointing
