"""Whether the model and the workers that there are can do what a study asks: problems, and warnings where they may."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from hpo_service.core.errors import Problem
from hpo_service.core.spelling import did_you_mean
from hpo_service.spec.space import Categories, Constant, Derived, SearchSpace
from hpo_service.spec.study import StudySpec
from trainer.common.errors import UserError
from trainer.common.target_modules import last_parts, target_modules

_GROUPS = ("all-linear", "attention", "mlp")
_PAGED = "paged_adamw_8bit"
_MOST_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """`modules` are full names of the linear layers that an adapter can go on, None where a worker has to look.

    `positions` is the longest row that the model was made for, None if it does not say. `experts`: a mixture of them.
    """

    architecture: str
    modules: tuple[str, ...] | None
    positions: int | None
    experts: bool = False


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """The workers that there are, and the database's time. `cuda` and `bitsandbytes` say whether any worker has it,
    None where that is not known.
    """

    now: datetime
    workers: int = 0
    devices: int = 0
    models: tuple[str, ...] = ()
    executor: str = ""
    cuda: bool | None = None
    bitsandbytes: bool | None = None


def model_problems(spec: StudySpec, space: SearchSpace, facts: ModelFacts) -> Iterator[Problem]:
    """What the model cannot do: `spec` has its preset expanded."""
    positions, length = facts.positions, spec.data.max_length
    if positions is not None and length > positions and _is_written(spec):
        yield Problem(
            detail=f"data.max_length is {length}, and the model reads rows of up to {positions} tokens (its "
            f"configuration, stretched positions included); write {positions} or less.",
            pointer="/data/max_length",
        )
    if facts.modules is None:
        return
    if not facts.modules:
        yield Problem(
            detail=f"the model's architecture, {facts.architecture}, has no linear layers that adapters can go on (its "
            "layers are of another kind, Conv1D); take another model.",
            pointer="/model/path",
        )
        return
    for value in sorted(map(str, space.values("target_modules"))):
        pointer = _pointer(space, "target_modules", value)
        for detail in _about_targets(value, facts.modules, facts):
            yield Problem(detail=detail, pointer=pointer, allowed=(*_GROUPS, *last_parts(facts.modules)[:_MOST_SHOWN]))


def model_warnings(spec: StudySpec, space: SearchSpace, facts: ModelFacts) -> Iterator[str]:
    """What of the model is not as expected, or not known."""
    positions, length = facts.positions, spec.data.max_length
    if positions is not None and length > positions:
        yield (
            f"rows are cut at {positions} tokens, the most that the model reads; data.max_length, which nobody wrote, "
            f"is {length}."
        )
    if facts.modules is None and not spec.data_checks.enabled:
        names = ", ".join(sorted(map(str, space.values("target_modules"))))
        yield (
            f"whether the model has the target modules {names} is not known before the first trial: its architecture "
            f"({facts.architecture or 'none named'}) is only known to workers, and data_checks.enabled is false."
        )


def fleet_problems(spec: StudySpec, space: SearchSpace, fleet: Fleet) -> Iterator[Problem]:
    """What no worker that there is can do."""
    for pointer, what, instead in _cuda_needs(spec, space):
        lacking = _lacking(fleet)
        if lacking is not None:
            yield Problem(
                detail=f"{what} needs {lacking}; write {instead!r}, or start workers that have it.", pointer=pointer
            )


def fleet_warnings(spec: StudySpec, space: SearchSpace, fleet: Fleet) -> Iterator[str]:
    """What workers can do only once there are others, as far as is known."""
    for _, what, _instead in _cuda_needs(spec, space):
        if fleet.cuda is None:
            known = "no worker is known" if fleet.workers == 0 else "the workers do not say whether they have it"
            yield f"{what} needs a CUDA device and bitsandbytes, and {known}; without, trials fail."
    ranks = spec.resources.gpus_per_trial
    if fleet.workers and fleet.devices and ranks > fleet.devices:
        goes_on = "it waits until there are more" + (" (HPO_WORKERS)" if fleet.executor == "local" else "")
        yield (
            f"resources.gpus_per_trial is {ranks}, and {_workers(fleet.workers)} occupied {fleet.devices} device(s) in "
            f"all when this was checked: {goes_on}."
        )


def deadline_problem(spec: StudySpec, now: datetime) -> Problem | None:
    """A deadline that lies behind."""
    deadline = spec.budget.deadline
    if deadline is None or deadline > now:
        return None
    return Problem(
        detail=f"budget.deadline is {deadline.isoformat()}, which is past: now it is {now:%Y-%m-%dT%H:%M:%SZ}; name a "
        "later time or leave it out.",
        pointer="/budget/deadline",
    )


def _is_written(spec: StudySpec) -> bool:
    return "max_length" in spec.data.model_fields_set


def _about_targets(value: str, modules: tuple[str, ...], facts: ModelFacts) -> Iterator[str]:
    """What is wrong with a value of `target_modules`: the trainer's own rule for each of its names."""
    names, which = last_parts(modules), f"the model ({facts.architecture})"
    has = f"It has {', '.join(names[:_MOST_SHOWN])}"
    experts = " Experts hold no adapters." if facts.experts else ""
    if value in _GROUPS:
        if not _selects(value, modules):
            yield f"{which} has no linear layer that target_modules {value!r} means. {has}.{experts}"
        return
    missing = [name for name in value.split(",") if name in _GROUPS or not _selects(name, modules)]
    if not missing:
        return
    grouped = [f" {name!r} stands alone, not in a list of names." for name in missing if name in _GROUPS]
    hints = grouped or [did_you_mean(name, (*names, *_GROUPS)) for name in missing]
    groups = ", ".join(group for group in _GROUPS if _selects(group, modules))
    what = f"target module{'s' if missing[1:] else ''} {', '.join(map(repr, missing))}"
    yield f"{which} has no {what}.{''.join(dict.fromkeys(hints))} {has}; or write {groups}.{experts}"


def _selects(wanted: str, modules: tuple[str, ...]) -> bool:
    try:
        return bool(target_modules(modules, wanted))
    except UserError:
        return False


def _cuda_needs(spec: StudySpec, space: SearchSpace) -> Iterator[tuple[str, str, str]]:
    """(pointer, what needs CUDA, what to write instead)."""
    if spec.model.quantization == "nf4":
        yield "/model/quantization", "model.quantization nf4", "none"
    if _PAGED in space.values("optimizer"):
        yield _pointer(space, "optimizer", _PAGED), f"optimizer {_PAGED}", "adamw"


def _lacking(fleet: Fleet) -> str | None:
    """What no worker has of what 4-bit weights and 8-bit optimizers need; None if that is not known."""
    if fleet.cuda is False:
        models = ", ".join(fleet.models[:3])
        return f"a CUDA device, which {_none_of(fleet.workers)} has ({models})"
    if fleet.cuda and fleet.bitsandbytes is False:
        return f"the package bitsandbytes, which {_none_of(fleet.workers)} has installed"
    return None


def _none_of(workers: int) -> str:
    return "no worker" if workers == 1 else f"none of the {workers} workers"


def _workers(count: int) -> str:
    return "the one worker" if count == 1 else f"the {count} workers"


def _pointer(space: SearchSpace, name: str, value: str) -> str:
    """Where a value of a parameter is written, as far as that is known: a preset's is not in the document."""
    form = space.forms.get(name)
    place = f"/space/{name}"
    match form:
        case Categories():
            written = [index for index, choice in enumerate(form.values) if choice == value]
            return f"{place}/choices/{written[0]}" if written else place
        case Derived():
            return f"{place}/expr"
        case Constant() | _:
            return place


def warnings_of(spec: StudySpec, space: SearchSpace, facts: ModelFacts | None, fleet: Fleet) -> list[str]:
    """All of them."""
    of_model = [] if facts is None else list(model_warnings(spec, space, facts))
    return [*of_model, *fleet_warnings(spec, space, fleet)]


def problems_of(spec: StudySpec, space: SearchSpace, facts: ModelFacts | None, fleet: Fleet) -> Iterator[Problem]:
    """All of them."""
    if facts is not None:
        yield from model_problems(spec, space, facts)
    yield from fleet_problems(spec, space, fleet)
