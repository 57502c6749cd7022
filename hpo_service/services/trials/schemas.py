"""What the API answers of trials, typed, and how one is asked for."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from hpo_service.services.common.schemas import Document, UsageDocument

TrialState = Literal["WAITING", "RUNNING", "COMPLETE", "PRUNED", "FAIL"]


class Rung(Document):
    """The evaluation loss after so many examples."""

    examples: int
    loss: float | None
    """null if it was not finite."""


class TrialSummary(Document):
    """A trial."""

    number: int
    state: TrialState
    paused: bool
    """The trial waits on a rung for its next slice."""
    baseline: bool
    parameters: dict[str, Any]
    """Every hyperparameter with its real value; of a waiting trial those that were given."""
    loss: float | None
    """The final loss; null before the trial's end."""
    losses: list[Rung]
    examples_seen: int
    """The highest rung that was reached."""
    total_examples: int | None
    """Where the trial ends; null before it starts."""
    outcome: str | None
    """Why it failed."""
    message: str
    attempts: int
    seconds: float
    cost_usd: float
    usage: UsageDocument
    progress: dict[str, Any] | None
    """The last sign of life of its running slice."""
    started_at: datetime | None
    finished_at: datetime | None


StoredNumber = float | Literal["nan", "inf", "-inf"]
"""JSON has no such numbers, so they are words."""


class OptunaTrial(Document):
    """A trial as Optuna's tables have it. A paused one is RUNNING, with `hpo_state` "paused" among its attributes."""

    number: int
    state: str
    values: list[StoredNumber] | None
    """One for each objective of a trial that ended; null before, and of failed ones."""
    params: dict[str, Any]
    """What was sampled; other parameters are `user_attrs`."""
    distributions: dict[str, str]
    """Optuna's JSON of each."""
    user_attrs: dict[str, Any]
    intermediate_values: dict[int, StoredNumber]
    """Loss by rung, in examples."""
    started_at: datetime | None
    finished_at: datetime | None


class OptunaTrials(Document):
    """A page of a study, enough to make the same Optuna study elsewhere."""

    directions: list[Literal["minimize", "maximize"]]
    items: list[OptunaTrial]
    next_page_token: str | None


class AttemptDocument(Document):
    """One execution of a slice. `outcome` is null while it runs."""

    slice_id: int
    attempt: int
    until_examples: int
    worker: str | None
    node: str | None
    """Where that worker is or was."""
    outcome: str | None
    cause: str | None
    """Why it was lost or failed, where that was no fault of the trial."""
    message: str
    started_at: datetime
    finished_at: datetime | None
    examples: int
    seconds: float
    cost_usd: float
    estimated: bool
    """Seconds and cost are an estimate: its worker was lost and could not tell."""
    flops: float
    usage: UsageDocument
    devices: int
    device: str
    """Model of the accelerator, or cpu."""
    dtype: str
    """What it was computed in."""
    attention: str
    """The kernel that was chosen."""
    micro_batch: int | None
    """Examples that one device took at once."""
    predicted_memory_bytes: int | None
    """What the peak of memory was expected to be."""


class TrialDocument(TrialSummary):
    """A trial with its history."""

    history: list[AttemptDocument]
    adapter_available: bool
    """There is a snapshot to download the adapter from."""


class EnqueueRequest(BaseModel):
    """A point to try next, in real values; what it leaves out is sampled."""

    model_config = ConfigDict(extra="forbid")

    parameters: dict[str, Any]
