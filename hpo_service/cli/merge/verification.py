"""Whether a text that was spliced says what was intended, and nothing else has changed."""

from collections.abc import Sequence

from hpo_service.cli.merge.scalars import Value, is_quoted_literal, says, written
from hpo_service.cli.merge.tree import Node


def equal(old: Node | None, new: Node | None) -> bool:
    """Whether both say the same in the same way, wherever it stands."""
    if old is None or new is None:
        return old is new
    same = (old.kind, old.text, old.style, old.anchor, old.tag) == (new.kind, new.text, new.style, new.anchor, new.tag)
    ours, theirs = list(old.children), list(new.children)
    return same and len(ours) == len(theirs) and all(map(equal, ours, theirs))


def only_changed(old: Node | None, new: Node | None, path: Sequence[str], value: Value) -> bool:
    """Whether `new` is `old` with `value` at the path, where there may have been nothing."""
    if new is None:
        return False
    if not path:
        return new.anchor in (None, old.anchor if old is not None else None) and _holds(old, new, value)
    name, rest = path[0], path[1:]
    if old is not None and old.kind == "sequence":
        return _item_changed(old, new, int(name), rest, value)
    if new.kind != "mapping":
        return False
    if old is not None and old.kind == "mapping" and (old.anchor, old.tag) != (new.anchor, new.tag):
        return False
    before = () if old is None else old.pairs
    others = [pair for pair in before if pair[0].text != name or pair[0].kind != "scalar"]
    now = [pair for pair in new.pairs if pair[0].text != name or pair[0].kind != "scalar"]
    (found,) = new.entries(name) if len(new.entries(name)) == 1 else (None,)
    if found is None or len(others) != len(now):
        return False
    kept = all(equal(a, c) and equal(b, d) for (a, b), (c, d) in zip(others, now, strict=True))
    was = None if old is None or not old.entries(name) else old.entries(name)[0][1]
    return kept and only_changed(was, found[1], rest, value)


def _item_changed(old: Node, new: Node, index: int, rest: Sequence[str], value: Value) -> bool:
    if new.kind != "sequence" or len(old.items) != len(new.items) or old.anchor != new.anchor:
        return False
    others = [(one, other) for at, (one, other) in enumerate(zip(old.items, new.items, strict=True)) if at != index]
    return all(equal(*pair) for pair in others) and only_changed(old.items[index], new.items[index], rest, value)


def _holds(old: Node | None, new: Node, value: Value) -> bool:
    """Whether `new` is exactly what `written` makes of the value."""
    if old is not None and is_quoted_literal(old) and isinstance(value, bool | int | float):
        return bool(new.style) and new.text == written(value)
    return says(new, value)
