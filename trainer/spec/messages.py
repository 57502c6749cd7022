"""What a worker and its service say to each other, one JSON object a line."""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from trainer.spec.base import Frozen
from trainer.spec.jobs import Job, JobResult
from trainer.spec.slices import Slice, SliceResult, SnapshotRef
from trainer.spec.trial import Dtype

#: what a worker tells of itself among its software: CUDA's version, or `none` without a device that has it
CUDA = "cuda"
BITSANDBYTES = "bitsandbytes"


class Ready(Frozen):
    """The worker is warm enough to take slices.

    `auto_dtype` is what `model.dtype: auto` means on its device. `marker` is the id of the marker that it found in the
    snapshot store; without one, `marker_problem` says why.
    """

    type: Literal["ready"] = "ready"
    pid: int
    device: str
    auto_dtype: Dtype = "float32"
    ranks: Annotated[int, Field(ge=1)] = 1
    software: dict[str, str]
    marker: str = ""
    marker_problem: str = ""


Phase = Literal["starting", "training", "evaluating"]


class Progress(Frozen):
    """A sign of life of a running slice; with `checkpoint`, a snapshot inside it is on disk.

    It is starting until its first optimizer step is done, of which the slowest so far took `slowest_step_seconds`;
    with neighbours it waits for its turn between two steps. Evaluating ends with the snapshot at the rung.
    """

    type: Literal["progress"] = "progress"
    slice_id: int
    attempt: int
    phase: Phase = "training"
    examples_seen: int
    step: int
    slowest_step_seconds: float = 0.0
    train_loss: float | None
    tokens_per_second: float
    memory_bytes: int
    checkpoint: SnapshotRef | None = None


class StartSlice(Frozen):
    """Service to worker: run this slice."""

    type: Literal["start"] = "start"
    slice: Slice


class StartJob(Frozen):
    """Service to worker: do this job beside the slices."""

    type: Literal["start_job"] = "start_job"
    job: Job


class StopSlice(Frozen):
    """Service to worker: stop the attempt at the next step boundary, leave a snapshot, answer `preempted`.

    A job is stopped at once and leaves nothing.
    """

    type: Literal["stop"] = "stop"
    slice_id: int
    attempt: int


WorkerMessage = Annotated[Ready | Progress | SliceResult | JobResult, Field(discriminator="type")]
WorkerCommand = Annotated[StartSlice | StartJob | StopSlice, Field(discriminator="type")]

worker_message: TypeAdapter[WorkerMessage] = TypeAdapter(WorkerMessage)
worker_command: TypeAdapter[WorkerCommand] = TypeAdapter(WorkerCommand)
