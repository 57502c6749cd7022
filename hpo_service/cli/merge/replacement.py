"""A value that a file has already is replaced where it stands."""

import re
from collections.abc import Mapping, Sequence

from hpo_service.cli.merge.edits import Piece, Unsafe, after_colon, content_end, line_start
from hpo_service.cli.merge.scalars import Value, says, written
from hpo_service.cli.merge.tree import Node

_PROPERTIES = re.compile(r"(?:[&!]\S*\s+)+")
_TEMPLATES = ("{{", "{%", "${", "$(")
_BLOCKS = ("|", ">")


def replacement(
    text: str, key: Node, old: Node, value: Value, *, referenced: Mapping[str, int], flow: bool, strict_json: bool
) -> list[Piece] | None:
    """The pieces that put `value` in the place of `old`; None if the file says it already.

    `referenced` has the line of the first alias of every anchor, `flow` is whether this stands in brackets.

    Raises:
        Unsafe: it cannot be replaced without touching what others wrote.
    """
    require_own(old, referenced)
    if says(old, value):
        return None
    if old.kind == "alias":
        return [Piece(old.start, old.end, written(value, flow=flow, strict_json=strict_json))]
    if old.tag is not None:
        raise Unsafe(f"the file's value has the tag {old.tag}", old.line + 1)
    if old.kind != "scalar":
        return _collection(text, key, old, value, flow=flow, strict_json=strict_json)
    if old.style in _BLOCKS:
        raise Unsafe("the file's value is a block of text", key.line + 1)
    sign = next((sign for sign in _TEMPLATES if sign in old.text), None)
    if sign is not None:
        raise Unsafe(f"the file's value is filled in from elsewhere ({old.text[:40]})", old.line + 1)
    if old.empty:
        at = after_colon(text, key)
        return [Piece(at, at, f" {written(value, flow=flow, strict_json=strict_json)}")]
    begin = _content_start(text, old)
    return [Piece(begin, old.end, written(value, old=old, flow=flow, strict_json=strict_json))]


def require_own(node: Node, referenced: Mapping[str, int]) -> None:
    """Raises Unsafe if an alias elsewhere repeats this node, so that a change here would be one there."""
    if node.anchor is not None and node.anchor in referenced:
        raise Unsafe(
            f"it is shared: *{node.anchor} in line {referenced[node.anchor]} repeats what stands there", node.line + 1
        )


def _content_start(text: str, node: Node) -> int:
    """Behind the anchor."""
    found = _PROPERTIES.match(text, node.start, node.end) if node.anchor is not None else None
    return node.start if found is None else found.end()


def _collection(text: str, key: Node, old: Node, value: Value, *, flow: bool, strict_json: bool) -> list[Piece]:
    """A list or a mapping of plain values gives way as a whole, if nothing else is written in it."""
    _require_replaceable(text, old, value)
    said = written(value, flow=flow, strict_json=strict_json)
    if old.flow:
        return [Piece(old.start, old.end, said)]
    end = content_end(text, key, old)
    if end is None:
        raise Unsafe("the file's list ends with an empty item", old.line + 1)
    if old.kind == "sequence" and isinstance(value, Sequence) and not isinstance(value, str) and value:
        begin = line_start(text, old.start)
        indent = text[begin : old.start]
        lines = [f"- {written(item, old=old.items[0])}" for item in value]
        between = text[old.items[0].end : old.items[1].start] if len(old.items) > 1 else ""
        newline = "\r\n" if "\r\n" in between or (not between and "\r\n" in text) else "\n"
        return [Piece(old.start, end, f"{newline}{indent}".join(lines))]
    return [Piece(after_colon(text, key), end, f" {said}")]


def _require_replaceable(text: str, old: Node, value: Value) -> None:
    fits = value is None or (isinstance(value, Mapping) if old.kind == "mapping" else isinstance(value, str | Sequence))
    if not fits:
        kind = "a mapping" if old.kind == "mapping" else "a list"
        raise Unsafe(f"the file has {kind} there", old.line + 1)
    inner = [node for child in old.children for node in child.walk()]
    if old.anchor is not None or any(
        node.kind != "scalar" or node.anchor or node.tag or node.style in _BLOCKS for node in inner
    ):
        raise Unsafe("the file's value holds more than plain values", old.line + 1)
    rest = text[old.start : old.end]
    for node in sorted(inner, key=lambda one: one.start, reverse=True):
        if old.start <= node.start and node.end <= old.end:
            rest = rest[: node.start - old.start] + rest[node.end - old.start :]
    if "#" in rest:
        raise Unsafe("a comment stands in the file's value", old.line + 1)
