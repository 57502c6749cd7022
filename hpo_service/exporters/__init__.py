"""Best parameters as configurations that production tools read."""

from collections.abc import Mapping
from types import MappingProxyType

from hpo_service.errors import InvalidRequest
from hpo_service.exporters.base import Render, Rendered
from hpo_service.exporters.canonical import render_json, render_yaml
from hpo_service.exporters.document import best_document
from hpo_service.exporters.hf import render_hf
from hpo_service.exporters.peft import render_peft
from trainer.spec import TrialFile

FORMATS: Mapping[str, Render] = MappingProxyType(
    {
        "yaml": render_yaml,
        "json": render_json,
        "hf": render_hf,
        "peft": render_peft,
    }
)

__all__ = ["FORMATS", "Render", "Rendered", "best_document", "render"]


def render(format: str, document: TrialFile) -> Rendered:
    """The document in one of `FORMATS`. Raises InvalidRequest for any other."""
    if format not in FORMATS:
        raise InvalidRequest(f"there is no export format {format!r}; use one of {', '.join(FORMATS)}.")
    return FORMATS[format](document)
