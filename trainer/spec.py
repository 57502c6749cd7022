"""The one contract that trainer and service share: what a trial is, what a slice asks for, what comes back.

Pydantic only. Nothing here imports torch, so the API image does not need it.
"""

from enum import StrEnum
from hashlib import sha256
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

API_VERSION: Literal["hpo/v1"] = "hpo/v1"

PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
UnitFloat = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1, max_length=512)]
LrScheduler = Literal["cosine", "linear", "constant"]


class Frozen(BaseModel):
    """Base of every value that crosses the boundary: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Outcome(StrEnum):
    """How an attempt ended."""

    DONE = "done"  #: the rung was reached and evaluated
    OOM = "oom"  #: out of device or host memory: a fact about the trial
    DIVERGED = "diverged"  #: the loss became non-finite or exploded: a fact about the trial
    DATA_ERROR = "data_error"  #: the data cannot be read or holds nothing to train on
    USER_ERROR = "user_error"  #: the spec asks for something impossible (unknown model, no such module)
    INFRA_ERROR = "infra_error"  #: disk, driver, bug: the slice may be tried again
    LOST = "lost"  #: the worker vanished or made no progress; written by the service
    PREEMPTED = "preempted"  #: stopped at a step boundary on request, with a snapshot


class ModelSpec(Frozen):
    """A base model on disk, in Hugging Face layout with safetensors weights."""

    path: Text
    dtype: Literal["float32", "bfloat16"] = "float32"
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = "auto"


class DataSpec(Frozen):
    """Instruction data as JSONL rows (`instruction`, optional `input`, `output`).

    Without `eval`, the last `eval_fraction` of a permutation keyed by `split_seed` is held out.
    """

    train: Text
    eval: Text | None = None
    eval_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.05
    split_seed: int = 0
    max_length: Annotated[int, Field(ge=8, le=131072)] = 512
    max_train_examples: Annotated[int, Field(ge=1)] | None = None
    max_eval_examples: Annotated[int, Field(ge=1)] | None = None


class Parameters(Frozen):
    """Every hyperparameter of a LoRA trial, resolved: constants and derived values included."""

    learning_rate: PositiveFloat = 2e-4
    lora_r: Annotated[int, Field(ge=1, le=1024)] = 16
    lora_alpha: PositiveFloat = 32.0
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.,-]{1,256}$")] = "all-linear"
    effective_batch: Annotated[int, Field(ge=1, le=4096)] = 16
    warmup_ratio: UnitFloat = 0.03
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.0
    lr_scheduler: LrScheduler = "cosine"
    epochs: Annotated[float, Field(gt=0, le=1000)] = 1.0
    max_grad_norm: PositiveFloat = 1.0
    adam_beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    adam_epsilon: PositiveFloat = 1e-8


class TrainingSettings(Frozen):
    """How a trial is run. Part of the trial: a change of `seed` or `micro_batch` changes its losses."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    micro_batch: Annotated[int, Field(ge=1, le=1024)] = 8
    eval_batch: Annotated[int, Field(ge=1, le=4096)] = 32
    activation_checkpointing: bool = False
    checkpoint_every_steps: Annotated[int, Field(ge=1)] = 200
    checkpoint_every_seconds: PositiveFloat = 600.0


class TrialSpec(Frozen):
    """All that determines the losses of a trial on one device model and software version."""

    model: ModelSpec
    data: DataSpec
    parameters: Parameters
    training: TrainingSettings = TrainingSettings()

    def digest(self) -> str:
        """SHA-256 of the canonical JSON; a snapshot belongs to exactly one digest."""
        return sha256(self.model_dump_json().encode()).hexdigest()


class TrialFile(TrialSpec):
    """What `python -m trainer run` takes: a hand-written trial or exported best parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    api_version: Literal["hpo/v1"] = Field(default=API_VERSION, alias="apiVersion")
    kind: Literal["Trial", "BestParams"] = "Trial"
    metadata: dict[str, Any] = {}
    provenance: dict[str, Any] = {}

    def trial(self) -> TrialSpec:
        """The trial alone, without names and provenance."""
        return TrialSpec(model=self.model, data=self.data, parameters=self.parameters, training=self.training)


class SnapshotRef(Frozen):
    """A snapshot on the shared store. `digest` is the SHA-256 of its `manifest.json`."""

    path: Annotated[str, Field(pattern=r"^[0-9a-z][0-9a-z/-]*$", max_length=256)]
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    examples_seen: Annotated[int, Field(ge=0)]


class FileDigest(Frozen):
    """One file of a snapshot."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size_bytes: Annotated[int, Field(ge=0)]


class SnapshotManifest(Frozen):
    """`manifest.json`: cursors, RNG keys and digests. Written last, after every file it names is on disk."""

    version: Literal[1] = 1
    trial_digest: str
    base_digest: str
    examples_seen: int
    step: int
    total_examples: int
    divergence: dict[str, Any]
    eval_loss: float | None
    eval_tokens: int | None
    usage: "Usage"
    files: dict[str, FileDigest]


class Usage(Frozen):
    """What an attempt consumed. Seconds are wall-clock seconds of the worker for this slice alone."""

    examples: int = 0
    steps: int = 0
    tokens: int = 0
    flops: float = 0.0
    load_seconds: float = 0.0
    train_seconds: float = 0.0
    evaluate_seconds: float = 0.0
    snapshot_seconds: float = 0.0
    peak_memory_bytes: int = 0

    def total_seconds(self) -> float:
        """Seconds the worker was occupied by the slice."""
        return self.load_seconds + self.train_seconds + self.evaluate_seconds + self.snapshot_seconds


class Slice(Frozen):
    """Take the trial from the newest of `snapshots` that verifies (else from its start) to `until_examples`.

    The rung is reached at the first optimizer step at or past `until_examples`, or at the trial's own end.
    `snapshot_dir` is relative to the snapshot root and unique to `(slice, attempt)`.
    """

    slice_id: int
    attempt: Annotated[int, Field(ge=1)]
    trial: TrialSpec
    until_examples: Annotated[int, Field(ge=1)]
    snapshot_dir: Annotated[str, Field(pattern=r"^[0-9a-z][0-9a-z/-]*$", max_length=200)]
    snapshots: tuple[SnapshotRef, ...] = ()

    @property
    def token(self) -> tuple[int, int]:
        """The fencing token."""
        return (self.slice_id, self.attempt)


class SliceResult(Frozen):
    """How an attempt ended and what it leaves behind. `finished` says that the trial has seen all its examples."""

    type: Literal["result"] = "result"
    slice_id: int
    attempt: int
    outcome: Outcome
    examples_seen: int
    finished: bool = False
    eval_loss: float | None = None
    eval_tokens: int | None = None
    train_loss: float | None = None
    snapshot: SnapshotRef | None = None
    resumed_from_examples: int = 0
    discarded_snapshots: tuple[str, ...] = ()
    usage: Usage = Usage()
    device: str = ""
    message: str = ""

    @model_validator(mode="after")
    def _done_is_complete(self) -> "SliceResult":
        if self.outcome is Outcome.DONE and (self.eval_loss is None or self.snapshot is None):
            raise ValueError("a slice that is done carries its evaluation loss and its snapshot")
        return self


class Ready(Frozen):
    """The worker is warm enough to take slices."""

    type: Literal["ready"] = "ready"
    pid: int
    device: str
    software: dict[str, str]


class Progress(Frozen):
    """A sign of life of a running slice; with `checkpoint`, a snapshot inside it is on disk."""

    type: Literal["progress"] = "progress"
    slice_id: int
    attempt: int
    examples_seen: int
    step: int
    train_loss: float | None
    tokens_per_second: float
    memory_bytes: int
    checkpoint: SnapshotRef | None = None


class StartSlice(Frozen):
    """Service to worker: run this slice."""

    type: Literal["start"] = "start"
    slice: Slice


class StopSlice(Frozen):
    """Service to worker: stop the attempt at the next step boundary, leave a snapshot, answer `preempted`."""

    type: Literal["stop"] = "stop"
    slice_id: int
    attempt: int


WorkerMessage = Annotated[Ready | Progress | SliceResult, Field(discriminator="type")]
WorkerCommand = Annotated[StartSlice | StopSlice, Field(discriminator="type")]

worker_message: TypeAdapter[WorkerMessage] = TypeAdapter(WorkerMessage)
worker_command: TypeAdapter[WorkerCommand] = TypeAdapter(WorkerCommand)
