"""Widen the space of a study that runs. Everything already tried stays inside."""

from collections.abc import Mapping
from typing import Any

from hpo_service.core.errors import InvalidSpec, Problem
from hpo_service.core.spelling import did_you_mean
from hpo_service.spec.space.core import Space
from hpo_service.spec.space.dimensions import Categories, FloatRange, Form, IntRange, NumberChoices
from hpo_service.spec.space.forms import Refused, read_form

_CLONE = "clone the study to change it"


def extended_forms(space: Space, changes: Mapping[str, Any]) -> dict[str, Form]:
    """The forms after `SearchSpace.extend`."""
    problems: list[Problem] = []
    forms = dict(space.forms)
    for name, change in changes.items():
        try:
            forms[name] = _extended(space, name, change)
        except Refused as refused:
            problems.append(refused.problem(f"/space/{name[:80].replace('~', '~0').replace('/', '~1')}"))
    if problems:
        raise InvalidSpec(problems[0].detail, problems=problems)
    return forms


def _extended(space: Space, name: str, change: object) -> Form:
    if name not in space.forms:
        raise Refused(f"{name!r} is not in the space of this study; {_CLONE}.{did_you_mean(name, space.forms)}")
    form = space.forms[name]
    if not isinstance(change, Mapping):
        raise Refused(f"{name} can only be widened with {{low, high}} or {{choices}}; {_CLONE}.")
    if isinstance(form, NumberChoices) and set(change) == {"choices"}:
        return _more_choices(name, form, change)
    if isinstance(form, FloatRange | IntRange) and change and set(change) <= {"low", "high"}:
        return _wider(name, form, change)
    kind = "its categories are fixed" if isinstance(form, Categories) else "only ranges and numeric choices can grow"
    raise Refused(f"{name} cannot be changed like this while the study exists: {kind}; {_CLONE}.")


def _wider(name: str, form: FloatRange | IntRange, change: Mapping[str, Any]) -> Form:
    written = {
        "low": form.low,
        "high": form.high,
        "log": form.log,
        "type": form.kind,
        **({"step": form.step} if form.step not in (None, 1) or form.kind == "float" else {}),
        **change,
    }
    wider = read_form(name, written)
    assert isinstance(wider, FloatRange | IntRange)
    if wider.low > form.low or wider.high < form.high:
        raise Refused(
            f"{name} reaches from {form.low:g} to {form.high:g} and cannot become {wider.low:g} to {wider.high:g}: "
            f"trials may lie outside; {_CLONE}."
        )
    if form.step is not None:
        steps = (form.low - wider.low) / form.step
        if abs(steps - round(steps)) > 1e-8:
            raise Refused(f"low {wider.low:g} of {name} is off its grid of {form.step:g} from {form.low:g}.", "low")
    kept = {"digits": form.digits} if isinstance(form, FloatRange) else {}
    return wider.model_copy(update={"when": form.when, **kept})


def _more_choices(name: str, form: NumberChoices, change: Mapping[str, Any]) -> Form:
    grown = read_form(name, {"choices": change["choices"]})
    if not isinstance(grown, NumberChoices) or not set(form.values) <= set(grown.values):
        raise Refused(
            f"choices of {name} must repeat {', '.join(map(str, form.values))} and add numbers; {_CLONE}.", "choices"
        )
    start = grown.values.index(form.values[0])
    if grown.values[start : start + len(form.values)] != form.values:
        raise Refused(
            f"numbers can be added to the choices of {name} below {form.values[0]:g} or above {form.values[-1]:g}, "
            f"not in between; {_CLONE}.",
            "choices",
        )
    _require_same_kind(name, form, grown)
    values = grown.values if form.whole else tuple(float(value) for value in grown.values)
    return form.model_copy(update={"values": values})


def _require_same_kind(name: str, form: NumberChoices, grown: NumberChoices) -> None:
    """Optuna's tables take no other type and no other scale for a parameter that has trials."""
    if form.whole and not grown.whole:
        fraction = next(value for value in grown.values if not isinstance(value, int))
        raise Refused(f"{fraction:g} cannot join the choices of {name}, which are whole numbers; {_CLONE}.", "choices")
    if form.log and grown.values[0] <= 0:
        raise Refused(
            f"{grown.values[0]:g} cannot join the choices of {name}, which are on a log scale; {_CLONE}.", "choices"
        )
