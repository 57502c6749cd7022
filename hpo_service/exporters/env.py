"""Variables for shells, `docker run --env-file` and dotenv readers: `LEARNING_RATE=0.00002`."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from hpo_service.exporters.base import Rendered, plain_float
from hpo_service.exporters.header import header
from hpo_service.exporters.values import NESTED, ExportedValue, without_unknown
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
        values=tuple(
            ExportedValue(path=(variable,), value=values[variable], group=NESTED.group_of(path))
            for _, path, variable in _names(document)
            if variable in values
        ),
    )


def variables(document: TrialFile) -> tuple[dict[str, str], tuple[str, ...]]:
    """Values by variable, and the names of those that not every reader would read alike (paths with blanks)."""
    found = [(variable, _text(value)) for value, _, variable in _names(document)]
    safe = {variable: text for variable, text in found if _SAFE.fullmatch(text)}
    return safe, tuple(variable.lower() for variable, text in found if not _SAFE.fullmatch(text))


def _names(document: TrialFile) -> Iterator[tuple[Any, tuple[str, ...], str]]:
    """Every value with its path in the document and its variable."""
    body = without_unknown(document.model_dump(mode="json", exclude_none=True))
    for section in ("parameters", "model", "data", "training"):
        for path, value in _flat((section,), body[section]):
            yield value, path, "_".join(path[1:] if section == "parameters" else path).upper()


def _flat(above: tuple[str, ...], values: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat((*above, name), value)
        else:
            yield (*above, name), value


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return plain_float(value) if isinstance(value, float) else str(value)
