"""Where a value goes in a file: in the place of an old one, beside its siblings, or nowhere safely."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hpo_service.cli.merge.edits import Piece, Unsafe
from hpo_service.cli.merge.insertion import at_the_end, indentation, insertions, into_nothing
from hpo_service.cli.merge.replacement import replacement, require_own
from hpo_service.cli.merge.scalars import Value, says
from hpo_service.cli.merge.tree import Node

_MERGE = "<<"


@dataclass(frozen=True)
class Target:
    """Ways to write a value, the best one first; None: the file says it already. `line` counts from 1."""

    candidates: Iterable[list[Piece]] | None
    line: int | None


@dataclass(frozen=True, kw_only=True)
class _Question:
    """What is looked for, and what is known of the whole document."""

    text: str
    root: Node
    value: Value
    order: Sequence[str]
    rivals: Sequence[str]
    strict_json: bool
    referenced: Mapping[str, int]  #: line of the first alias of an anchor


def find(
    text: str,
    root: Node | None,
    path: Sequence[str],
    value: Value,
    *,
    order: Sequence[str],
    rivals: Sequence[str] = (),
    strict_json: bool,
) -> Target:
    """How `value` gets to `path`.

    Raises:
        Unsafe: it has no safe place.
    """
    if root is None:
        return Target(None if value is None else [at_the_end(text, path, value)], None)
    referenced: dict[str, int] = {}
    for node in root.walk():
        if node.kind == "alias":
            referenced.setdefault(node.text, node.line + 1)
    asked = _Question(
        text=text,
        root=root,
        value=value,
        order=order,
        rivals=rivals,
        strict_json=strict_json,
        referenced=referenced,
    )
    return _descend(asked, root, path, flow=False)


def effective(root: Node | None, path: Sequence[str]) -> Node | None:
    """What a reader of the file gets at a path, aliases and merges followed; None if nothing, or nothing certain."""
    node = root
    for part in path:
        if node is None or root is None:
            return None
        if node.kind == "sequence":
            node = node.items[int(part)] if part.isdecimal() and int(part) < len(node.items) else None
        elif node.kind == "mapping":
            entries = node.entries(part)
            node = entries[-1][1] if entries else _inherited(root, node, part)
        else:
            return None
        if node is not None and node.kind == "alias":
            node = _anchored(root, node)
    return node


def _descend(asked: _Question, node: Node, path: Sequence[str], *, flow: bool) -> Target:
    """In `node`, which is a mapping or a list."""
    require_own(node, asked.referenced)
    if node.tag is not None:
        raise Unsafe(f"it lies in a value with the tag {node.tag}", node.line + 1)
    name, rest, flow = path[0], path[1:], flow or node.flow
    if node.kind == "sequence":
        if not rest or not name.isdecimal() or int(name) >= len(node.items):
            raise Unsafe(f"the file has a list there ({len(node.items)} items) and no {name}", node.line + 1)
        return _enter(asked, node, None, node.items[int(name)], rest, flow=flow)
    if node.kind != "mapping":
        raise Unsafe(f"it holds {node.text[:40]!r}, which has no fields", node.line + 1)
    entries = node.entries(name)
    if len(entries) > 1:
        lines = " and ".join(str(key.line + 1) for key, _ in entries)
        # Some readers take the last one, others refuse the file: only where all say the same nothing is missed.
        agreed = not rest and all(says(child, asked.value) for _, child in entries)
        raise Unsafe(f"{name} stands there {len(entries)} times (lines {lines})", overruled=not agreed)
    if not rest:
        _require_no_rival(asked, node)
    if not entries:
        return _missing(asked, node, path)
    key, child = entries[0]
    if rest:
        return _enter(asked, node, key, child, rest, flow=flow)
    pieces = replacement(
        asked.text, key, child, asked.value, referenced=asked.referenced, flow=flow, strict_json=asked.strict_json
    )
    return Target(None if pieces is None else [pieces], key.line + 1)


def _enter(asked: _Question, parent: Node, key: Node | None, child: Node, rest: Sequence[str], *, flow: bool) -> Target:
    """On to what a key or an item holds."""
    if child.kind == "alias":
        raise Unsafe(f"*{child.text} stands for a value that is shared", child.line + 1)
    holds_nothing = (says(child, None) and child.kind == "scalar") or (child.kind == "mapping" and not child.pairs)
    if key is not None and holds_nothing and child.anchor is None and child.tag is None:
        if asked.value is None:
            return Target(None, key.line + 1)
        unit = indentation(asked.root)
        return Target(
            [
                into_nothing(
                    asked.text, key, child, rest, asked.value, parent=parent, unit=unit, strict_json=asked.strict_json
                )
            ],
            key.line + 1,
        )
    if child.kind == "scalar":
        name = f"item {rest[0]}" if key is None else repr(key.text)
        raise Unsafe(f"{name} holds {child.text[:40]}, which has no fields", child.line + 1)
    return _descend(asked, child, rest, flow=flow)


def _missing(asked: _Question, node: Node, path: Sequence[str]) -> Target:
    """A key that is not there itself; a merge (`<<`) may bring it."""
    inherited = _inherited(asked.root, node, path[0])
    line = node.line + 1
    if inherited is not None and len(path) > 1:
        raise Unsafe(
            f"{path[0]} comes from a merge (<<) with line {inherited.line + 1}; a part of it here would hide the rest",
            line,
        )
    if says(inherited, asked.value) if inherited is not None else asked.value is None:
        return Target(None, line)
    ways = insertions(
        asked.text,
        node,
        path,
        asked.value,
        order=asked.order if len(path) == 1 else (),
        unit=indentation(asked.root),
        strict_json=asked.strict_json,
    )
    return Target(ways, line)


def _inherited(root: Node, mapping: Node, name: str) -> Node | None:
    """What a merge key of the mapping says under this name."""
    for _, merged in mapping.entries(_MERGE):
        sources = merged.items if merged.kind == "sequence" else (merged,)
        for source in sources:
            found = _anchored(root, source) if source.kind == "alias" else source
            if found is None or found.kind != "mapping":
                continue
            entries = found.entries(name)
            inner = entries[0][1] if entries else _inherited(root, found, name)
            if inner is not None:
                return inner
    return None


def _anchored(root: Node, alias: Node) -> Node | None:
    """What an alias stands for: the last value before it with this anchor."""
    known = [node for node in root.walk() if node.anchor == alias.text and node.start < alias.start]
    return known[-1] if known else None


def _require_no_rival(asked: _Question, mapping: Node) -> None:
    for rival in asked.rivals:
        for key, other in mapping.entries(rival):
            said = other.text.strip()
            off = says(other, None) or (other.kind == "scalar" and said.lstrip("-").strip("0.") == "")
            if not off and not said.startswith("-"):
                reason = f"the file's {rival} ({said[:40]}) decides instead; remove it first"
                raise Unsafe(reason, key.line + 1, overruled=True)
