"""A YAML text as trees that know where everything stands in it, so that a part can be replaced and the rest stay."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from ruamel.yaml import YAML
from ruamel.yaml import events as yaml_events
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.reader import ReaderError

from hpo_service.core.errors import InvalidRequest

Kind = Literal["scalar", "alias", "sequence", "mapping"]
_TEMPLATES = ("{{", "{%")
_MOST_LEVELS = 100
#: line ends of YAML 1.1 that are none in 1.2
_UNSURE_BREAK = re.compile("[\x85\u2028\u2029]")
#: YAML allows tabs between tokens, this parser does not; as spaces they stand in the same places
_WITHIN_LINES = re.compile(r"(?<=\S)[ \t]+")


@dataclass(frozen=True, kw_only=True)
class Node:
    """One value. `start` and `end` are offsets in the text, anchor and tag included; `line` counts from 0.

    `text` is what a scalar says, or the name that an alias refers to. `style` is the quote or the indicator of a block
    scalar, "" for a plain one. An empty value has no place of its own: it starts where the next thing does.
    """

    kind: Kind
    start: int
    end: int
    line: int
    column: int
    text: str = ""
    style: str = ""
    flow: bool = False
    anchor: str | None = None
    tag: str | None = None
    pairs: tuple[tuple["Node", "Node"], ...] = ()
    items: tuple["Node", ...] = ()

    @property
    def empty(self) -> bool:
        """Whether nothing is written: `key:`."""
        return self.kind == "scalar" and not self.style and not self.text

    @property
    def children(self) -> Iterator["Node"]:
        """Keys and values, or items."""
        for key, value in self.pairs:
            yield key
            yield value
        yield from self.items

    def walk(self) -> Iterator["Node"]:
        """The node and everything in it."""
        yield self
        for child in self.children:
            yield from child.walk()

    def entries(self, key: str) -> list[tuple["Node", "Node"]]:
        """The pairs of a mapping under this key; more than one where it is named twice."""
        return [pair for pair in self.pairs if pair[0].kind == "scalar" and pair[0].text == key]


class Unreadable(Exception):
    """The text is not YAML. `line` counts from 1; None where it is not known."""

    def __init__(self, problem: str, line: int | None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.line = line


def read_trees(text: str) -> list[Node | None]:
    """The documents of the text; None for one that is empty. Raises Unreadable."""
    unsure = _UNSURE_BREAK.search(text)
    if unsure is not None:
        line = text.count("\n", 0, unsure.start()) + 1
        raise Unreadable(f"it holds {unsure[0]!a}, which ends a line for some readers and not for others", line)
    yaml: Any = YAML(typ="safe", pure=True)
    trees: list[Node | None] = []
    try:
        events = iter(list(yaml.parse(_WITHIN_LINES.sub(lambda found: " " * len(found[0]), text))))
        for event in events:
            if isinstance(event, yaml_events.DocumentStartEvent):
                root = _node(next(events), events, 0)
                trees.append(None if root.empty and not root.tag and not root.anchor else root)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise Unreadable(str(error.problem or error), None if mark is None else int(mark.line) + 1) from error
    except ReaderError as error:
        line = text.count("\n", 0, int(error.position)) + 1
        raise Unreadable(f"the character {error.character!r} may not stand in YAML", line) from error
    except YAMLError as error:
        raise Unreadable(str(error).splitlines()[0], None) from error
    return trees


def read_file(text: str, name: str) -> list[Node | None]:
    """As `read_trees`, for the file of this name. Raises InvalidRequest."""
    try:
        return read_trees(text)
    except Unreadable as error:
        where = name if error.line is None else f"{name}, line {error.line}"
        hint = (
            "It looks like a template: merge into the file that its values come from."
            if any(sign in text for sign in _TEMPLATES)
            else "Mend it first; nothing was changed."
        )
        raise InvalidRequest(f"--merge: {where} is not YAML: {error.problem}. {hint}") from error


def _node(event: Any, events: Iterator[Any], level: int) -> Node:  # noqa: ANN401
    if level > _MOST_LEVELS:
        raise Unreadable(f"it is nested more than {_MOST_LEVELS} levels deep", int(event.start_mark.line) + 1)
    place: dict[str, Any] = {
        "start": int(event.start_mark.index),
        "line": int(event.start_mark.line),
        "column": int(event.start_mark.column),
    }
    if isinstance(event, yaml_events.AliasEvent):
        return Node(kind="alias", end=int(event.end_mark.index), text=str(event.anchor), **place)
    shared = {"anchor": event.anchor, "tag": None if event.tag is None else str(event.tag), **place}
    if isinstance(event, yaml_events.ScalarEvent):
        end = int(event.end_mark.index)
        return Node(kind="scalar", end=end, text=str(event.value), style=event.style or "", **shared)
    flow, children = bool(event.flow_style), []
    last = next(events)
    while not isinstance(last, yaml_events.CollectionEndEvent):
        children.append(_node(last, events, level + 1))
        last = next(events)
    end = int(last.end_mark.index)
    if isinstance(event, yaml_events.MappingStartEvent):
        pairs = tuple(zip(children[::2], children[1::2], strict=True))
        return Node(kind="mapping", end=end, flow=flow, pairs=pairs, **shared)
    return Node(kind="sequence", end=end, flow=flow, items=tuple(children), **shared)
