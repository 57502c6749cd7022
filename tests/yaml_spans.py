"""Where things stand in a YAML text, by PyYAML: another reader than the one that merges."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

Path = tuple[str, ...]
_MARKED = re.compile(r"[ ]*# hpo: [^\r\n]*(\r\n|\n)")
_COMMAS_AND_BLANKS = re.compile(r"[,\s]+")


@dataclass(frozen=True)
class Span:
    """Where a key begins and ends, and its value.

    `flow` is whether it stands in brackets, `leaf` whether it holds no others.
    """

    key_start: int
    key_end: int
    start: int
    end: int
    flow: bool
    leaf: bool


def spans(text: str, document: int | None) -> dict[Path, Span]:
    """Every value below a key, by its path; of all documents if `document` is None, else of one."""
    found: dict[Path, Span] = {}
    events = iter(list(yaml.parse(text.replace("\t", " "), Loader=yaml.SafeLoader)))  # it takes no tabs between tokens
    number = -1
    for event in events:
        if isinstance(event, yaml.DocumentStartEvent):
            number += 1
            here = found if document in (None, number) else {}
            _value(next(events), events, (), here, flow=False)
    return found


def _value(event: Any, events: Iterator[Any], path: Path, found: dict[Path, Span], *, flow: bool) -> tuple[int, bool]:
    """Where a value ends, and whether it is a leaf."""
    if not isinstance(event, yaml.CollectionStartEvent):
        return _at(event.end_mark), True
    inner, end, number = flow or bool(event.flow_style), _at(event.start_mark), 0
    mapping = isinstance(event, yaml.MappingStartEvent)
    event = next(events)
    while not isinstance(event, yaml.CollectionEndEvent):
        key = event
        if mapping:
            assert isinstance(key, yaml.ScalarEvent)
            event = next(events)
        name = key.value if mapping else str(number)
        start = _at(event.start_mark)
        end, leaf = _value(event, events, (*path, name), found, flow=inner)
        found[(*path, name)] = Span(_at(key.start_mark), _at(key.end_mark), start, end, inner, leaf)
        event, number = next(events), number + 1
    closed = _at(event.end_mark) > _at(event.start_mark)
    return (_at(event.end_mark) if closed else end), number == 0


def _at(mark: Any) -> int:
    return int(mark.index)


def outside(old: str, new: str, paths: set[Path], document: int) -> tuple[str, str]:
    """Both texts without the values at the paths, without lines that only `new` has for them, and without marks.

    They are equal where nothing else has changed. Of members that were added in brackets, commas and blanks are not
    compared.
    """
    new = _MARKED.sub("", new)
    before, after = spans(old, document), spans(new, document)
    cuts_old, cuts_new, loose = [], [], False
    for path in sorted(paths):
        if path not in after:
            continue
        top = next(path[:length] for length in range(1, len(path) + 1) if path[:length] in after and (
            path[:length] not in before or before[path[:length]].leaf or length == len(path)))  # fmt: skip
        now, was = after[top], before.get(top)
        if was is None and not now.flow:
            cuts_new.append(_lines(new, now))
        elif was is None:
            cuts_new.append((now.key_start, now.end))
            loose = True
        else:
            cuts_old.append((_colon(old, was), max(was.end, _colon(old, was))))
            made = len(top) < len(path) and not now.flow
            cuts_new.append(_below(new, now) if made else (_colon(new, now), now.end))
            if not was.leaf or not now.leaf or was.start == was.end:
                loose = loose or was.flow
    left = _without(old, cuts_old), _without(new, cuts_new)
    return (_COMMAS_AND_BLANKS.sub("", left[0]), _COMMAS_AND_BLANKS.sub("", left[1])) if loose else left


def _colon(text: str, span: Span) -> int:
    """Behind the colon of a key; anchors and blanks before a value may stay or go with it."""
    found = re.compile(r"\s*:").match(text, span.key_end)
    return found.end() if found else span.start


def _lines(text: str, span: Span) -> tuple[int, int]:
    """The whole lines of a key and its value, with their break."""
    start = text.rfind("\n", 0, span.key_start) + 1
    end = text.find("\n", span.end)
    if end >= 0:
        return start, end + 1
    while start and text[start - 1] in "\r\n":
        start -= 1
    return start, len(text)


def _below(text: str, span: Span) -> tuple[int, int]:
    """What a block mapping says, from the break that ends the line of its key."""
    start = text.find("\n", _colon(text, span))
    start -= text[start - 1] == "\r"
    return start, span.end


def _without(text: str, cuts: list[tuple[int, int]]) -> str:
    for start, end in sorted(set(cuts), reverse=True):
        text = text[:start] + text[end:]
    return text
