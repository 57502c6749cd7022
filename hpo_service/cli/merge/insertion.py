"""A key that a file does not have becomes a line among its siblings, or a member within their braces."""

from collections.abc import Iterator, Sequence

from hpo_service.cli.merge.edits import Piece, Unsafe, after_colon, content_end, end_of_line, line_break, line_start
from hpo_service.cli.merge.scalars import Value, key_text, written
from hpo_service.cli.merge.tree import Node

_INDENT = 2


def insertions(
    text: str, mapping: Node, path: Sequence[str], value: Value, *, order: Sequence[str], unit: int, strict_json: bool
) -> Iterator[list[Piece]]:
    """Ways to put `value` at the path below `mapping`, which lacks its first key; the best one first.

    `order` are the names that the export has in this mapping, so that a new key stands beside one that belongs to it.
    """
    if mapping.flow:
        yield _within_braces(text, mapping, path, value, strict_json=strict_json)
        return
    column = mapping.pairs[0][0].column
    for pair in _neighbours(mapping, path[0], order):
        behind = content_end(text, *pair)
        if behind is None:
            continue
        newline, at = line_break(text, pair[0].start), end_of_line(text, behind)
        lines = _lines(path, value, column, unit)
        if behind > 0 and text[behind - 1] in "\r\n":  # behind a block of text
            yield [Piece(behind, behind, "".join(line + newline for line in lines))]
        elif at is not None:
            yield [Piece(at, at, "".join(newline + line for line in lines))]
    first = mapping.pairs[0][0]
    begin = line_start(text, first.start)
    if not text[begin : first.start].strip(" "):
        newline = line_break(text, first.start)
        yield [Piece(begin, begin, "".join(line + newline for line in _lines(path, value, column, unit)))]


def into_nothing(
    text: str, key: Node, old: Node, path: Sequence[str], value: Value, *, parent: Node, unit: int, strict_json: bool
) -> list[Piece]:
    """The path below a key that holds nothing yet: `key:`, `key: null` or `key: {}`.

    Raises:
        Unsafe: something follows on its line.
    """
    if parent.flow:
        said = "{" + _members(path, value, strict_json=strict_json) + "}"
        begin = after_colon(text, key)
        return [Piece(begin, begin, f" {said}") if old.empty else Piece(old.start, old.end, said)]
    colon = after_colon(text, key)
    end = colon if old.empty else old.end
    at = end_of_line(text, end)
    if at is None:
        raise Unsafe("something else stands on its line", key.line + 1)
    newline = line_break(text, key.start)
    lines = "".join(newline + line for line in _lines(path, value, key.column + unit, unit))
    return [Piece(at, at, lines)] if old.empty else [Piece(colon, end, ""), Piece(at, at, lines)]


def at_the_end(text: str, path: Sequence[str], value: Value) -> list[Piece]:
    """The path in a file that holds nothing but comments."""
    newline = line_break(text, 0)
    lines = _lines(path, value, 0, _INDENT)
    if text.removeprefix("\ufeff") and not text.endswith(("\n", "\r")):
        return [Piece(len(text), len(text), "".join(newline + line for line in lines))]
    return [Piece(len(text), len(text), "".join(line + newline for line in lines))]


def indentation(root: Node | None) -> int:
    """By how much this file indents a mapping in a mapping, where it does it for the first time."""
    if root is None:
        return _INDENT
    for node in root.walk():
        for key, inner in node.pairs:
            if not node.flow and inner.kind == "mapping" and not inner.flow and inner.column > key.column:
                return inner.pairs[0][0].column - key.column
    return _INDENT


def _neighbours(mapping: Node, name: str, order: Sequence[str]) -> list[tuple[Node, Node]]:
    """Where a key may go, the best place first: behind what the export says before it, else behind what it says after
    it, else at the end. Only the last pair may span lines.
    """
    at = order.index(name) if name in order else 0
    known = [*reversed(order[:at]), *order[at + 1 :]]
    near = [pair for other in known for pair in mapping.entries(other) if _is_short(*pair)]
    return [*near[:1], mapping.pairs[-1], *near[1:]]


def _is_short(key: Node, value: Node) -> bool:
    return value.empty or (
        value.kind in ("scalar", "alias") and value.line == key.line and value.style not in ("|", ">")
    )


def _lines(path: Sequence[str], value: Value, column: int, unit: int) -> list[str]:
    *outer, last = path
    lines = [" " * (column + depth * unit) + key_text(name, quoted=False) + ":" for depth, name in enumerate(outer)]
    indent = " " * (column + len(outer) * unit)
    return [*lines, f"{indent}{key_text(last, quoted=False)}: {written(value)}"]


def _members(path: Sequence[str], value: Value, *, strict_json: bool) -> str:
    """`path: value`, in braces from the second name on."""
    name = key_text(path[0], quoted=strict_json)
    if len(path) == 1:
        return f"{name}: {written(value, flow=True, strict_json=strict_json)}"
    return f"{name}: {{{_members(path[1:], value, strict_json=strict_json)}}}"


def _within_braces(text: str, mapping: Node, path: Sequence[str], value: Value, *, strict_json: bool) -> list[Piece]:
    quoted = strict_json or (bool(mapping.pairs) and all(key.style == '"' for key, _ in mapping.pairs))
    member = _members(path, value, strict_json=strict_json or quoted)
    if not mapping.pairs:
        return [Piece(mapping.start, mapping.end, "{" + member + "}")]
    key, last = mapping.pairs[-1]
    end = key.end if last.empty and text[key.end : last.start].lstrip()[:1] != ":" else content_end(text, key, last)
    if end is None:
        raise Unsafe("the last member of the braces has no known end", key.line + 1)
    begin = line_start(text, key.start)
    prefix = text[begin : key.start]
    rest = text[end : mapping.end]
    comma = rest.lstrip().startswith(",")
    if prefix.strip(" \t"):  # members side by side
        return [Piece(end, end, f", {member}")]
    behind = end + rest.index(",") + 1 if comma else end
    at = end_of_line(text, behind)
    newline = line_break(text, key.start)
    if at is None or at > mapping.end:
        return [Piece(end, end, f",{newline}{prefix}{member}")]
    if comma:
        return [Piece(at, at, f"{newline}{prefix}{member},")]
    if at == end:
        return [Piece(end, end, f",{newline}{prefix}{member}")]
    return [Piece(end, end, ","), Piece(at, at, f"{newline}{prefix}{member}")]
