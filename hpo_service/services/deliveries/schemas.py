"""What the API answers of deliveries, and how one is asked for."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from hpo_service.services.common.schemas import Document
from trainer.spec import VariantName

DeliveryState = Literal["queued", "running", "completed", "failed"]
_NEEDS_A_GPU = "awq-w4a16"


class DeliverRequest(BaseModel):
    """Make a model of a promotion."""

    model_config = ConfigDict(extra="forbid")

    merge: Annotated[
        bool, Field(strict=True, description="Merge the adapter into its base; `quantize` does it anyway.")
    ] = False
    quantize: Annotated[
        VariantName | None, Field(description="Make this variant of the merged model, too. All but gptq are GGUF.")
    ] = None
    retrain: Annotated[
        bool, Field(strict=True, description="Train again, even where an adapter of the same trial and rows is there.")
    ] = False

    @field_validator("quantize", mode="before")
    @classmethod
    def _runs_without_a_gpu(cls, value: object) -> object:
        if value == _NEEDS_A_GPU:
            raise ValueError(
                f"{_NEEDS_A_GPU} needs a GPU of its own, and jobs have none; deliver with merge and run "
                f"`python -m trainer quantize --type {_NEEDS_A_GPU}` on the merged model, or take gptq-w4a16"
            )
        return value


class StepDocument(Document):
    """A job of a delivery."""

    job: int
    kind: Literal["train_final", "merge", "quantize"]
    state: Literal["waiting", "running", "done", "failed"]
    attempt: int
    failures_by_cause: dict[str, int]
    worker: str | None
    """Which has or had the last attempt."""
    progress: dict[str, Any]
    """The last sign of life of a running training."""
    message: str
    """How the last attempt ended, unless it ended well."""
    seconds: float
    """Device seconds of all attempts."""
    cost_usd: float
    finished_at: datetime | None


class FileDocument(Document):
    """A file of an artifact."""

    name: str
    size_bytes: int
    sha256: str


class ArtifactDocument(Document):
    """What a step left in the snapshot store: a folder that nothing but deleting the store removes."""

    name: str
    """`adapter`, `merged`, or the variant; download it by this name."""
    path: str
    """In the snapshot store."""
    location: str
    """The same as a whole path or URL."""
    size_bytes: int
    sha256: str
    """Over `SHA-256  name` of its files, a line each, sorted by name."""
    files: list[FileDocument]
    perplexity_before: float | None
    """On the same evaluation rows, of what the step began with; null of an adapter."""
    perplexity_after: float | None
    prompt: str | None
    """Of the first evaluation row."""
    generated: str | None
    """What the model says to it, greedily."""
    tool: str | None
    versions: dict[str, str]
    """Of the packages that decide the result."""


class FinalLossDocument(Document):
    """The adapter's own losses beside the promoted ones."""

    promoted_loss: float | None
    """What the trial reached in the search."""
    loss: float
    """The same rows, judged again in this delivery."""
    promoted_test_loss: float | None
    test_loss: float | None
    examples: int
    reused: bool
    """The adapter was there already, of the same trial and rows: nothing was trained."""
    device: str


class DeliveryDocument(Document):
    """A delivery. What was asked for never changes; the rest follows from its jobs."""

    id: int
    promotion: str
    """`NAME@VERSION`."""
    study: str
    state: DeliveryState
    message: str
    """Why it failed, and what helps; else how far it is."""
    merge: bool
    quantize: VariantName | None
    retrain: bool
    reuses: bool
    """It began with a verified adapter of the same trial."""
    steps: list[StepDocument]
    losses: FinalLossDocument | None
    """null before the adapter is there."""
    artifacts: list[ArtifactDocument]
    seconds: float
    cost_usd: float
    delivered_by: str
    """Label of the API key."""
    created_at: datetime
    finished_at: datetime | None
