"""The values of an exported file one by one, each with what it is about, for those who merge them into files."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from hpo_service.core.export_groups import Group
from trainer.spec import TrialFile

_SECTIONS = ("model", "data", "parameters", "training")


@dataclass(frozen=True, kw_only=True)
class ExportedValue:
    """A value and where it stands in the file. If a file has one of `rivals` beside it, that one decides instead."""

    path: tuple[str, ...]
    value: Any
    group: Group
    rivals: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class BatchSplit:
    """How a format says an effective batch: `effective` = `per_device` x `accumulation` x devices."""

    effective: int
    per_device: str
    accumulation: str


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a format's keys are about.

    `groups` has dotted keys; one stands for all below it that are not named themselves. `whole` are mappings that are
    one value. `rivals` are other keys of the target that say the same as one of ours, or overrule it. `per_device` and
    `accumulation` are the keys that an effective batch is split into.
    """

    groups: Mapping[str, Group]
    whole: frozenset[str] = frozenset()
    rivals: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    per_device: str | None = None
    accumulation: str | None = None

    def values(self, body: Mapping[str, Any]) -> tuple[ExportedValue, ...]:
        """The values of a file with this body, in its order."""
        return tuple(self._values(body, ()))

    def _values(self, body: Mapping[str, Any], above: tuple[str, ...]) -> Iterator[ExportedValue]:
        for name, value in body.items():
            path = (*above, str(name))
            dotted = ".".join(path)
            if isinstance(value, Mapping) and value and dotted not in self.whole:
                yield from self._values(value, path)
            else:
                yield ExportedValue(
                    path=path, value=value, group=self.group_of(path), rivals=self.rivals.get(dotted, ())
                )

    def group_of(self, path: tuple[str, ...]) -> Group:
        """What a key is about. Raises KeyError for one that nobody thought of."""
        for length in range(len(path), 0, -1):
            found = self.groups.get(".".join(path[:length]))
            if found is not None:
                return found
        raise KeyError(".".join(path))

    def split(self, document: TrialFile) -> BatchSplit | None:
        """How the effective batch is said; None if it is a value of its own, or packing makes a batch a set of rows."""
        if self.per_device is None or self.accumulation is None or document.data.packing:
            return None
        return BatchSplit(
            effective=document.parameters.effective_batch, per_device=self.per_device, accumulation=self.accumulation
        )


#: of the document's own names
NESTED = Layout(
    groups=MappingProxyType(
        {
            "apiVersion": Group.PROVENANCE,
            "kind": Group.PROVENANCE,
            "metadata": Group.PROVENANCE,
            "provenance": Group.PROVENANCE,
            "model": Group.MODEL,
            "model.dtype": Group.PRECISION,
            "model.attention": Group.PRECISION,
            "data": Group.DATA,
            "parameters": Group.HYPERPARAMETERS,
            "training": Group.RUN,
            "training.seed": Group.SEED,
            "training.micro_batch": Group.BATCH,
            "training.eval_batch": Group.BATCH,
        }
    ),
)


def without_unknown(body: dict[str, Any]) -> dict[str, Any]:
    """A dumped document without a row format that nobody knows: `auto` is no format."""
    if body["data"]["format"] != "auto":
        return body
    return body | {"data": {name: value for name, value in body["data"].items() if name != "format"}}


def nested_values(document: TrialFile) -> dict[str, Any]:
    """Sections `model`, `data`, `parameters`, `training`, `provenance` if there is one. What is not set is left out."""
    body = without_unknown(document.model_dump(mode="json", exclude_none=True))
    sections = {name: body[name] for name in _SECTIONS}
    return sections | ({"provenance": body["provenance"]} if body["provenance"] else {})
