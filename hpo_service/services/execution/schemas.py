"""Answers about where work runs: workers, slices, and what happened to them."""

from datetime import datetime
from typing import Any, Literal

from hpo_service.services.common.schemas import Document

WorkerState = Literal["ready", "draining", "quarantined", "gone"]
SliceState = Literal["waiting", "running", "done", "failed", "dropped"]


class HeldSliceDocument(Document):
    """A slice that a worker holds."""

    study: str
    trial_number: int
    slice_id: int
    attempt: int


class WorkerDocument(Document):
    """A worker: a process group with a warm base model. Its name may come again after a restart of the service."""

    id: int
    name: str
    executor: str
    state: WorkerState
    """draining: it gets nothing more and is replaced once it is idle. quarantined: nor do its places, until it is
    released."""
    pending: list[str]
    """What was asked for and not carried out yet, in order."""
    node: str
    places: list[str]
    """The devices that it occupies, `node/device` each."""
    device: str
    """Model of the accelerator, or cpu."""
    software: dict[str, str]
    auto_dtype: str
    """What `model.dtype: auto` is there."""
    repeatable: bool | None
    """Whether a training step that it took twice gave the same bits; null before its first slice."""
    message: str
    """Why it is quarantined, or how it ended."""
    slices: list[HeldSliceDocument]
    started_at: datetime
    gone_at: datetime | None
    """When its process ended."""


class SliceDocument(Document):
    """A slice: a trial on its way to one rung."""

    id: int
    trial_number: int
    until_examples: int
    state: SliceState
    attempt: int
    """Number of the current or last attempt; 0 before the first."""
    failures: int
    """Attempts that count against `resources.max_attempts`."""
    failures_by_cause: dict[str, int]
    """All attempts that were lost or failed through no fault of the trial, by cause."""
    seconds: float
    """For how long all its attempts that have ended held their workers."""
    lost_seconds: float
    """Those of them that lost attempts took: an estimate."""
    cost_usd: float
    """Of all its attempts that have ended; what lost ones cost is an estimate."""
    worker: str | None
    """Where the current or last attempt is."""
    node: str | None
    progress: dict[str, Any]
    """The last sign of life of the current or last attempt."""
    created_at: datetime
    finished_at: datetime | None


class EventDocument(Document):
    """Something that happened to the service."""

    id: int
    kind: str
    payload: dict[str, Any]
    created_at: datetime
