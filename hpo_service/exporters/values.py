"""The whole document as nested values under plain names, for tools that hand values on without a schema."""

from typing import Any

from trainer.spec import TrialFile

_SECTIONS = ("model", "data", "parameters", "training")


def nested_values(document: TrialFile) -> dict[str, Any]:
    """Sections `model`, `data`, `parameters`, `training`, `provenance` if there is one. What is not set is left out."""
    body = document.model_dump(mode="json", exclude_none=True)
    sections = {name: body[name] for name in _SECTIONS}
    return sections | ({"provenance": body["provenance"]} if body["provenance"] else {})
