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
    usd: float
    flops: float
