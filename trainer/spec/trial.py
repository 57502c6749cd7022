"""A trial: base model, data, hyperparameters and how they are run."""

from hashlib import sha256
from typing import Annotated, Any, Final, Literal, Self

from pydantic import ConfigDict, Field

from trainer.spec.base import API_VERSION, Frozen, PositiveFloat, Text, UnitFloat
from trainer.spec.zero import ZeroSettings

Dtype = Literal["float32", "bfloat16"]
AUTO: Final = "auto"
LrScheduler = Literal["cosine", "linear", "constant", "wsd"]
DataFormat = Literal["auto", "alpaca", "prompt_completion", "chat", "sharegpt", "text"]


class ModelSpec(Frozen):
    """A base model on disk, in Hugging Face layout with safetensors weights.

    `dtype` auto is bfloat16 on CUDA devices that have it, else float32. It has to be resolved before anything is
    trained: by the service once for all trials of a study, by the trainer alone for its own device.
    """

    path: Text
    dtype: Literal["auto", "float32", "bfloat16"] = AUTO
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = "auto"
    quantization: Literal["none", "nf4"] = "none"

    def in_dtype(self, dtype: Dtype) -> Self:
        """The same with `auto` resolved to `dtype`; what names its dtype stays as it is."""
        return self.model_copy(update={"dtype": dtype}) if self.dtype == AUTO else self

    @property
    def resolved_dtype(self) -> Dtype:
        """What it is computed in. Raises RuntimeError if that was not resolved."""
        if self.dtype == AUTO:
            raise RuntimeError(f"model.dtype of {self.path} is auto and was not resolved for any device")
        return self.dtype


class DataSpec(Frozen):
    """Rows on disk: a file (JSONL, JSONL.gz, Parquet) or a folder of such files, which are its shards.

    `format` auto is detected from the first row. `learn` response trains on what the assistant says, all on every
    token. With `packing`, the examples of a micro-batch share rows of `max_length` tokens and cannot see each other.
    Without `eval`, the last `eval_fraction` of a permutation keyed by `split_seed` is held out. `test` rows are looked
    at once, after a trial's last step; a search never sees them.
    """

    train: Text
    eval: Text | None = None
    test: Text | None = None
    format: DataFormat = "auto"
    learn: Literal["response", "all"] = "response"
    packing: bool = False
    eval_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.05
    split_seed: int = 0
    max_length: Annotated[int, Field(ge=8, le=131072)] = 512
    max_train_examples: Annotated[int, Field(ge=1)] | None = None
    max_eval_examples: Annotated[int, Field(ge=1)] | None = None


class Parameters(Frozen):
    """Every hyperparameter of a LoRA trial, resolved: constants and derived values included.

    `init_lora_weights` pissa and olora start from the base's own directions and are exported at rank 2r.
    `loraplus_lr_ratio` multiplies the learning rate of B (LoRA+), `neftune_noise_alpha` scales noise on the embeddings
    (0: none), `decay_ratio` is the share of steps over which `wsd` (warmup, stable, decay) falls to zero.
    """

    learning_rate: PositiveFloat = 2e-4
    lora_r: Annotated[int, Field(ge=1, le=1024)] = 16
    lora_alpha: PositiveFloat = 32.0
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.,-]{1,256}$")] = "all-linear"
    use_rslora: bool = False
    use_dora: bool = False
    init_lora_weights: Literal["default", "pissa", "olora"] = "default"
    loraplus_lr_ratio: Annotated[float, Field(ge=1, le=1024)] = 1.0
    neftune_noise_alpha: Annotated[float, Field(ge=0, le=1000)] = 0.0
    optimizer: Literal["adamw", "paged_adamw_8bit"] = "adamw"
    effective_batch: Annotated[int, Field(ge=1, le=4096)] = 16
    warmup_ratio: UnitFloat = 0.03
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.0
    lr_scheduler: LrScheduler = "cosine"
    decay_ratio: UnitFloat = 0.1
    epochs: Annotated[float, Field(gt=0, le=1000)] = 1.0
    max_grad_norm: PositiveFloat = 1.0
    adam_beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    adam_epsilon: PositiveFloat = 1e-8


class TrainingSettings(Frozen):
    """How a trial is run. Part of the trial: a change of `seed`, `micro_batch` or `ranks` changes its losses.

    `micro_batch` is the most examples that one rank takes at once; less where the predicted memory does not fit
    the device model. `ranks` above 1 shards the base over so many processes (ZeRO-3).
    """

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    micro_batch: Annotated[int, Field(ge=1, le=1024)] = 8
    eval_batch: Annotated[int, Field(ge=1, le=4096)] = 32
    ranks: Annotated[int, Field(ge=1, le=1024)] = 1
    zero: ZeroSettings = ZeroSettings()
    activation_checkpointing: bool = False
    checkpoint_every_steps: Annotated[int, Field(ge=1)] = 200
    checkpoint_every_seconds: PositiveFloat = 600.0


class TrialSpec(Frozen):
    """All that determines the losses of a trial on one device model and software version."""

    model: ModelSpec
    data: DataSpec
    parameters: Parameters
    training: TrainingSettings = TrainingSettings()

    def in_dtype(self, dtype: Dtype) -> Self:
        """The same with `model.dtype: auto` resolved to `dtype`."""
        return self.model_copy(update={"model": self.model.in_dtype(dtype)})

    def digest(self) -> str:
        """SHA-256 of the canonical JSON; a snapshot belongs to exactly one digest.

        Test rows are no part of it: they are looked at after the last step and change nothing before it.
        """
        trained_on = self.data.model_copy(update={"test": None})
        return sha256(self.model_copy(update={"data": trained_on}).model_dump_json().encode()).hexdigest()


class TrialFile(TrialSpec):
    """What `python -m trainer run` takes: a hand-written trial or exported best parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    api_version: Literal["hpo/v1"] = Field(default=API_VERSION, alias="apiVersion")
    kind: Literal["Trial", "BestParams"] = "Trial"
    metadata: dict[str, Any] = Field(default_factory=dict)
    provenance: dict[str, Any] = Field(default_factory=dict)

    def trial(self) -> TrialSpec:
        """The trial alone, without names and provenance."""
        return TrialSpec(model=self.model, data=self.data, parameters=self.parameters, training=self.training)
