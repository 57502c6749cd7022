"""What is posted to make and change studies beside the spec, and what is answered before there is a study; typed."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from hpo_service.services.common.schemas import Document
from hpo_service.services.studies.schemas import PastDocument

CheckState = Literal["passed", "warned", "failed", "pending", "off"]


class DataCheckDocument(Document):
    """A check of data, before anything is trained on them."""

    state: CheckState
    """failed: the report says so, or (`report` is null) the check itself could not be done."""
    job: int | None
    """Look at `/v1/data-checks/{job}` for how it goes on; null if it is off."""
    message: str
    """Why there is no report, if something went wrong."""
    report: dict[str, Any] | None
    """Verdict, findings and statistics; null while it is pending."""
    seconds: float
    """What the check took."""


class ValidationReport(Document):
    """What a study would be, without starting it."""

    name: str
    space: dict[str, Any]
    """The expanded space."""
    dimensions: int
    trials: int
    slices: int
    ladder: list[int]
    """Rungs in examples."""
    train_rows: int
    eval_rows: int
    expected_examples: int
    full_examples: int
    """If every trial were trained to its end."""
    expected_share: float
    expected_seconds: float | None
    """Worker seconds at the speed of earlier studies of this model; null if there are none."""
    expected_usd: float | None
    confirmation_examples: int | None
    """What a confirmation may take on top, at most; null without one."""
    confirmation_runs: int | None
    """How many runs that is."""
    baseline: dict[str, Any] | None
    past: list[PastDocument]
    """Earlier studies that it would learn from."""
    data_check: DataCheckDocument
    """The report on these data if there is one; else it is being made."""
    warnings: list[str]
    resolved: dict[str, Any]


class KnownPointDocument(Document):
    """A configuration that was published as good."""

    values: dict[str, Any]
    """Real values; what they leave out is as in the baseline."""
    source: str
    from_parameters: float
    """Meant for models of at least so many parameters."""
    to_parameters: float | None
    """And of at most so many; null: any."""


class SearchSpaceDocument(Document):
    """A search space that ships with the service."""

    name: str
    title: str
    baseline: dict[str, Any]
    """The published values, trial 0 of a study that names this preset."""
    portfolio: list[KnownPointDocument]
    """Other published configurations, in the order in which they are tried after trial 0."""
    document: dict[str, Any]
    """The keys that a study with this preset starts from."""
    source: str
    """The commented YAML."""


class CloneRequest(BaseModel):
    """A new study from the spec of another one."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(max_length=63)]
    changes: dict[str, Any] = Field(default_factory=dict, description="Merged into the spec (RFC 7396; null removes).")


class ExtendRequest(BaseModel):
    """What may change while a study exists: caps, and the space where it grows."""

    model_config = ConfigDict(extra="forbid")

    budget: dict[str, Any] = Field(default_factory=dict, description="Caps by name; null removes one.")
    space: dict[str, Any] = Field(
        default_factory=dict, description="By parameter: wider {low, high}, or {choices: [...]} with numbers added."
    )
