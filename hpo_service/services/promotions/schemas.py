"""What the API answers of promotions, and how one is asked for. `PromotionFacts` is what is stored: it only grows."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from hpo_service.services.common.schemas import Document
from hpo_service.spec.study import NAME_PATTERN

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Note = Annotated[str, Field(max_length=2000, description="For those who see it later.")]


class PromoteRequest(BaseModel):
    """Make a trial's parameters a promotion."""

    model_config = ConfigDict(extra="forbid")

    study: Annotated[Name, Field(description="Name of the study.")]
    trial: Annotated[int | None, Field(ge=0, lt=2**31, description="Number of the trial; null: the best one.")] = None
    name: Annotated[Name, Field(description="Name of the promotion; the next version is made.")]
    note: Note = ""


class RollbackRequest(BaseModel):
    """Go back to an earlier version."""

    model_config = ConfigDict(extra="forbid")

    version: Annotated[int | None, Field(ge=1, description="null: the one before the latest.")] = None
    note: Note = ""


class LossesDocument(Document):
    """What the trial reached, where it is known."""

    searched_loss: float | None
    """The last one in the search, in which luck has a part."""
    searched_examples: int | None
    confirmed_loss: float | None
    """Mean over new seeds, trained to the end."""
    confirmed_spread: float | None
    """Standard deviation between seeds."""
    confirmed_seeds: int
    """0: it was not confirmed."""
    test_loss: float | None
    """On rows that the search never saw; the mean over all `confirmed_seeds`."""


class ComparisonDocument(Document):
    """The trial against the baseline. Both losses are means over the seeds that both have."""

    baseline_trial: int
    baseline_loss: float
    loss: float
    examples: int
    """The trial's loss is after so many."""
    baseline_examples: int | None = None
    """The baseline's loss is after so many: as `examples`, unless each was trained to an end of its own. null for
    promotions of before this was recorded."""
    difference: float
    """The trial's loss minus the baseline's: negative is better."""
    half_width: float | None
    """The true difference is that far from `difference` at most, with 95 %."""
    seeds: int
    """New seeds that both have; 0: the search's one seed, where how much seeds matter is assumed."""
    better: bool
    """The interval leaves no doubt."""


class DigestsDocument(Document):
    """SHA-256 of what the parameters were found with."""

    trial: str
    """Of model, data, parameters and training as they are exported."""
    snapshot: str
    """Of the manifest of the trial's newest snapshot, which was verified."""
    base_model: str
    train: str
    eval: str | None
    test: str | None


class EnvironmentDocument(Document):
    """What trained the trial, and what promoted it."""

    device: str
    dtype: str = ""
    """What it was computed in; empty for promotions of before this was recorded."""
    attention: str
    repeatable: bool | None = None
    """Whether the worker's steps can be repeated bit for bit; null if it did not find out."""
    software: dict[str, Any]
    """Versions on the worker."""
    generator: str
    """The service that made the promotion."""
    commit: str | None
    """Of that service, if it was told."""


class BillDocument(Document):
    """What finding the parameters took: device seconds and USD."""

    trial_seconds: float
    trial_usd: float
    study_seconds: float
    study_usd: float
    confirmation_seconds: float
    confirmation_usd: float


class PromotionFacts(Document):
    """Why the parameters may be used."""

    verdict: str
    """How they compare with the baseline, in a sentence."""
    losses: LossesDocument
    comparison: ComparisonDocument | None
    """null without a baseline, or if the trial is the baseline itself."""
    digests: DigestsDocument
    environment: EnvironmentDocument
    bill: BillDocument


class PromotionDocument(PromotionFacts):
    """One version of a name. It never changes; an approval is written beside it."""

    name: str
    version: int
    study: str
    study_deleted: bool
    """Whether that study is gone; another one may have its name now."""
    trial_number: int
    parameters: dict[str, Any]
    effective: bool
    """Whether it may be used: it needs no approval, or has it. The latest of these is what is pulled."""
    needs_approval: bool
    rollback_of: int | None
    """The version that this one repeats."""
    note: str
    promoted_by: str
    """Label of the API key."""
    created_at: datetime
    approved_by: str | None
    approved_at: datetime | None


class ChangeDocument(Document):
    """A value that differs."""

    path: str
    before: Any
    after: Any


class PromotionDifference(Document):
    """Two promotions side by side: only what differs."""

    before: str
    after: str
    changes: list[ChangeDocument]
    """Of model, data, parameters and training, then of losses, comparison, digests, environment and bill."""
