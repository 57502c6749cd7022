"""Jobs: work on a worker that is not a trial. The same attempts and fencing as a slice."""

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from trainer.spec.base import Frozen, Outcome, Text
from trainer.spec.deliveries import MergeAdapter, QuantizeModel, TrainFinal
from trainer.spec.quality import QualityThresholds
from trainer.spec.trial import DataSpec


class CheckData(Frozen):
    """Check data before anything is trained on it. The tokenizer and chat template are the model's.

    `target_modules` are the values of that parameter which are looked for in the model first.
    """

    kind: Literal["check_data"] = "check_data"
    model: Text
    data: DataSpec
    thresholds: QualityThresholds = QualityThresholds()
    target_modules: tuple[str, ...] = ()


class CheckPaths(Frozen):
    """Say which of these paths and which snapshot store the worker sees; only `worker` answers for its node."""

    kind: Literal["check_paths"] = "check_paths"
    worker: Text
    snapshots: Text
    paths: Annotated[tuple[Text, ...], Field(max_length=256)]


class PathSeen(Frozen):
    """A path as a worker sees it; without a `problem` it can be read."""

    path: str
    problem: str = ""


class PathsReport(Frozen):
    """What a worker sees from its node. `marker` is the id of the marker in the snapshot store, "" with the problem.

    Bytes that are free are not known of an object store.
    """

    node: str
    paths: tuple[PathSeen, ...]
    marker: str
    marker_problem: str = ""
    snapshots_free_bytes: int | None = None


SideTask = Annotated[CheckData | CheckPaths | MergeAdapter | QuantizeModel, Field(discriminator="kind")]
"""What a worker does beside its slices."""

Task = Annotated[CheckData | CheckPaths | TrainFinal | MergeAdapter | QuantizeModel, Field(discriminator="kind")]
"""What a job is for. Training takes a worker's devices, so a worker gets it as a slice."""

job_task: TypeAdapter[Task] = TypeAdapter(Task)


class Job(Frozen):
    """One attempt at a task. `job_id` comes from the sequence that numbers slices, so tokens never collide."""

    job_id: int
    attempt: Annotated[int, Field(ge=1)]
    task: SideTask

    @property
    def token(self) -> tuple[int, int]:
        """The fencing token."""
        return (self.job_id, self.attempt)


class JobResult(Frozen):
    """How an attempt at a job ended. A report that says FAIL is a job that is done."""

    type: Literal["job_result"] = "job_result"
    job_id: int
    attempt: int
    outcome: Outcome
    report: dict[str, Any] | None = None
    seconds: float = 0.0
    message: str = ""
