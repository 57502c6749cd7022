"""Which values of an export are merged: hyperparameters, and what else was asked for; the rest belongs to the file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hpo_service.cli.merge.scalars import says, written
from hpo_service.cli.merge.splice import Setting, Unwritten
from hpo_service.cli.merge.tree import Node
from hpo_service.core.errors import InvalidRequest
from hpo_service.core.export_groups import GROUPS, Group

Json = dict[str, Any]
#: what the file has at a path, wherever it gets it from
LookUp = Callable[[tuple[str, ...]], Node | None]


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What is merged, and what is not.

    `left` are values that belong to the file, a sentence a group; `beside` are values of the file's own that are called
    like merged ones and say something else. `batch` says how the effective batch is reached.
    """

    settings: tuple[Setting, ...]
    unwritten: tuple[Unwritten, ...]
    left: tuple[str, ...]
    beside: tuple[str, ...] = ()
    batch: str | None = None


def included(text: str | None) -> frozenset[Group]:
    """The groups named in `model,data`. Raises InvalidRequest for one that does not exist."""
    names = [part.strip() for part in (text or "").split(",") if part.strip()]
    known = {str(group) for group in Group}
    strange = [name for name in names if name not in known]
    if strange:
        groups = "; ".join(f"{group}: {words}" for group, words in GROUPS.items())
        raise InvalidRequest(f"--include: there is no group {', '.join(map(repr, strange))}. There are {groups}.")
    return frozenset(map(Group, names))


def select(exported: Json, include: frozenset[Group], gpus: int, look_up: LookUp) -> Selection:
    """What is merged into the file that `look_up` reads, which trains on so many GPUs."""
    wanted = {Group.HYPERPARAMETERS, *include}
    batch = exported["batch"]
    split = None if batch is None else _batch(exported, batch, Group.BATCH in include, gpus, look_up)
    settings, left, beside = [], dict[Group, list[str]](), list[str]()
    for one in exported["values"]:
        path, group = tuple(one["path"]), Group(one["group"])
        if split is not None and path in ((batch["per_device"],), (batch["accumulation"],)):
            settings += [setting for setting in split.settings if setting.path == path]
        elif group in wanted:
            settings.append(Setting(path=path, value=one["value"], rivals=tuple(one["rivals"])))
            if len(path) > 1 and (own := look_up(path[-1:])) is not None and not says(own, one["value"]):
                beside.append(f"{path[-1]} (line {own.line + 1})")
        elif one["value"] is not None and (said := _differs(path, one["value"], look_up(path))):
            left.setdefault(group, []).append(said)
    return Selection(
        settings=tuple(settings),
        unwritten=() if split is None else split.unwritten,
        left=tuple(f"belongs to the file (--include {group}): {', '.join(names)}" for group, names in left.items()),
        beside=_beside(beside),
        batch=None if split is None else split.batch,
    )


def _beside(names: Sequence[str]) -> tuple[str, ...]:
    """Keys of the file's own that are called like values of an export that has them one level deeper."""
    if not names:
        return ()
    return (
        f"the file's own {', '.join(names)}: this format has its values one level below, under `parameters`; whoever "
        "reads the file has to read them there",
    )


def _differs(path: tuple[str, ...], value: Any, found: Node | None) -> str:  # noqa: ANN401
    """The name of a value that the file does not say, with both where they are short; "" if the file says it."""
    name = ".".join(path)
    if found is None:
        return name
    if says(found, value):
        return ""
    here = written(value)
    if found.kind != "scalar" or len(here) + len(found.text) > 60:
        return name
    return f"{name} ({here} in the search, {found.text or 'nothing'} in the file)"


def _batch(exported: Json, batch: Json, include: bool, gpus: int, look_up: LookUp) -> Selection:
    """The effective batch as the format splits it, exactly or not at all."""
    effective, per_device, accumulation = batch["effective"], batch["per_device"], batch["accumulation"]
    found = look_up((per_device,))
    devices = "1 GPU" if gpus == 1 else f"{gpus} GPUs"
    values = {one["path"][0]: one["value"] for one in exported["values"]}
    if include:
        size = _most(effective // gpus, values[per_device]) if effective % gpus == 0 else None
        whose = ""
    else:
        size = int(found.text) if found is not None and found.text.isdecimal() and int(found.text) > 0 else None
        whose = " (the file's)"
    problem = _problem(effective, per_device, size, gpus, devices, include=include)
    if problem is not None or size is None:
        return Selection(
            settings=(),
            unwritten=(Unwritten(name=accumulation, value=None, reason=problem or "", line=_line(found)),),
            left=(),
        )
    steps = effective // (size * gpus)
    settings = (Setting(path=(per_device,), value=size),) if include else ()
    return Selection(
        settings=(*settings, Setting(path=(accumulation,), value=steps)),
        unwritten=(),
        left=(),
        batch=f"effective_batch {effective} = {per_device} {size}{whose} x {accumulation} {steps} x {devices}"
        + ("; if more GPUs train, merge with --gpus N" if gpus == 1 else ""),
    )


def _problem(
    effective: int, per_device: str, size: int | None, gpus: int, devices: str, *, include: bool
) -> str | None:
    if effective % gpus:
        return f"effective_batch {effective} is no multiple of {devices}"
    if size is None:
        return (
            f"effective_batch {effective} is {per_device} times accumulation steps times GPUs, and the file has no "
            f"number under {per_device}: write one there, or add --include batch"
        )
    if not include and effective % (size * gpus):
        return (
            f"effective_batch {effective} is no multiple of {per_device} {size} (the file's) x {devices}: change that "
            "number, or add --include batch"
        )
    return None


def _most(size: int, at_most: int) -> int:
    """The largest part of a batch that is not above a limit and divides it."""
    return next(candidate for candidate in range(min(size, at_most), 0, -1) if size % candidate == 0)


def _line(found: Node | None) -> int | None:
    return None if found is None else found.line + 1


def missed(unwritten: Sequence[Unwritten], beside: Sequence[str]) -> tuple[str, ...]:
    """What the file says otherwise than it was trained, or leaves out, and why it was not written, a line each."""
    return (*(_sentence(one) for one in unwritten if one.missed), *beside)


def unneeded(unwritten: Sequence[Unwritten], left: Sequence[str]) -> tuple[str, ...]:
    """What else was not written and why, a line each."""
    return (*(_sentence(one) for one in unwritten if not one.missed), *left)


def _sentence(one: Unwritten) -> str:
    value = "" if one.value is None else f" {written(one.value)}"
    where = "" if one.line is None else f" (line {one.line})"
    instead = "" if one.found is None else f", where the file has {one.found or 'nothing'}"
    return f"{one.name}{value}{instead}: {one.reason}{where}"
