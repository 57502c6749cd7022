"""A trial's parameters in Optuna's tables: sampled ones are its params, each of the others is a user attribute."""

from collections.abc import Mapping
from typing import Any

from hpo_service.spec.space import Assignment
from trainer.spec import Parameters

_DEFAULTS = Parameters().model_dump()


def fixed_attributes(assignment: Assignment) -> dict[str, Any]:
    """The user attributes: constants, derived values and the trainer's defaults, by name."""
    parameters = assignment.parameters.model_dump()
    return {name: value for name, value in parameters.items() if name not in assignment.sampled}


def trained_with(params: Mapping[str, Any], user_attrs: Mapping[str, Any]) -> dict[str, Any]:
    """All that the trainer was given, in its order; empty before the trial begins."""
    known = {name: params[name] if name in params else user_attrs.get(name) for name in _DEFAULTS}
    return {
        name: float(value) if isinstance(_DEFAULTS[name], float) else value
        for name, value in known.items()
        if value is not None
    }
