"""A quantized variant as its maker hands it over to be gated and recorded."""

from dataclasses import dataclass
from typing import Any

from trainer.export.judge import Judgement


@dataclass(frozen=True)
class Variant:
    """`judgement` is of the variant itself, reloaded; the rest goes into the manifest."""

    judgement: Judgement
    tool: str
    versions: dict[str, str]
    settings: dict[str, Any]
    details: dict[str, Any]
    seconds: dict[str, float]
