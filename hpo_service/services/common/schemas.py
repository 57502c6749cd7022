"""What several kinds of answers are made of."""

from pydantic import BaseModel, ConfigDict


class Document(BaseModel):
    """Base of every answer."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class SpentDocument(Document):
    """What the study has consumed, running attempts not counted."""

    trials: int
    examples: int
    seconds: float
    """Worker seconds times GPUs."""
    lost_seconds: float
    """Those of them that lost attempts held their devices for: an estimate."""
    usd: float
    flops: float


class UsageDocument(Document):
    """What was computed, how fast and how well; running attempts count when they end."""

    steps: int
    tokens: int
    """Trained on, padding left out."""
    tokens_per_second: float | None
    """While training and waiting for batches; null if nothing was trained."""
    mfu: float | None
    """Model FLOPs of training per peak of the devices; null if the peak of any is unknown."""
    hfu: float | None
    """As `mfu`, with what activation checkpointing computes again."""
    busy: float | None
    """Share of the time in which a model was computed, to train or to evaluate; null if no time passed."""
    energy_joules: float | None
    """null if any attempt could not read a counter."""
    peak_memory_bytes: int
    load_seconds: float
    data_seconds: float
    train_seconds: float
    evaluate_seconds: float
    snapshot_seconds: float
    lost_seconds: float
    """For how long lost attempts held their worker: an estimate, since they could not tell."""
