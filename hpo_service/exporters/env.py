"""Variables for shells, `docker run --env-file` and dotenv readers: `LEARNING_RATE=0.00002`."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from hpo_service.exporters.base import Rendered, plain_float
from hpo_service.exporters.header import header
from trainer.spec import TrialFile

# Written without quotes, which `--env-file` would take for a part of the value.
_SAFE = re.compile(r"[A-Za-z0-9_./:@%+,=-]*")


def render_env(document: TrialFile) -> Rendered:
    """A line a value. Hyperparameters have their own names, all others begin with their section's."""
    values, dropped = variables(document)
    lines = "".join(f"{name}={value}\n" for name, value in values.items())
    return Rendered(
        text=header(document, dropped=dropped) + lines,
        media_type="text/plain",
        file_name="best.env",
        dropped=dropped,
    )


def variables(document: TrialFile) -> tuple[dict[str, str], tuple[str, ...]]:
    """Values by variable, and the names of those that not every reader would read alike (paths with blanks)."""
    body = document.model_dump(mode="json", exclude_none=True)
    found = dict(_flat("", body["parameters"]))
    for section in ("model", "data", "training"):
        found |= dict(_flat(f"{section}_", body[section]))
    safe = {name.upper(): value for name, value in found.items() if _SAFE.fullmatch(value)}
    return safe, tuple(name for name, value in found.items() if not _SAFE.fullmatch(value))


def _flat(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(f"{prefix}{name}_", value)
        else:
            yield f"{prefix}{name}", _text(value)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return plain_float(value) if isinstance(value, float) else str(value)
