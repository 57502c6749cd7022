"""An edge of a search space in words, and the one command that moves it."""

import json
import shlex
from typing import Any

from hpo_service.search.importances import Edge
from hpo_service.spec.space import FloatRange, IntRange, SearchSpace


def sentence(edge: Edge) -> str:
    """What was found."""
    return (
        f"{edge.parameter} lies at the {edge.side} edge of its range ({edge.low:g} to {edge.high:g}) in all "
        f"{edge.trials} trials that promise most, {edge.best:.3g} in the first"
    )


def command(edge: Edge, study: str, space: SearchSpace, *, ended: bool) -> str:
    """What widens the range: of the study itself, or of a clone if it has ended."""
    if ended:
        form = _written(space, edge)
        return f"hpo study clone {study} {study}-wider --set {shlex.quote(f'space.{edge.parameter}={form}')}"
    ((key, value),) = edge.change.items()
    setting = f"space.{edge.parameter}.{key}={json.dumps(value)}"
    return f"hpo study extend {study} --set {shlex.quote(setting)}"


def _written(space: SearchSpace, edge: Edge) -> str:
    """The wider form as a user writes it, on one line of JSON, which is YAML."""
    form = space.forms[edge.parameter]
    written: dict[str, Any] = {}
    if isinstance(form, FloatRange | IntRange):
        written = {"low": form.low, "high": form.high, "log": form.log}
        written |= {"step": form.step} if form.step not in (None, 1) else {}
    written |= edge.change
    if form.when:
        written["when"] = {name: list(values) for name, values in form.when.items()}
    return json.dumps(written)
