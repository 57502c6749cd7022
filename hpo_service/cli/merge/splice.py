"""Values spliced into a YAML or JSON text one by one; each result is read again and compared with what was intended."""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from hpo_service.cli.merge.edits import Piece, Unsafe, apply
from hpo_service.cli.merge.origin import marked
from hpo_service.cli.merge.places import Target, effective, find
from hpo_service.cli.merge.scalars import Value, says, written
from hpo_service.cli.merge.tree import Node, Unreadable, read_file, read_trees
from hpo_service.cli.merge.verification import equal, only_changed
from hpo_service.core.errors import InvalidRequest

_DOT = re.compile(r"(?<!\\)\.")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A value and where it goes, below the key that is merged into.

    Where the file has one of `rivals` beside it, that one is obeyed and this one is not, or both are refused.
    """

    path: tuple[str, ...]
    value: Value
    rivals: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """As people say it."""
        return ".".join(self.path)


@dataclass(frozen=True, kw_only=True)
class Change:
    """What was written. `before` is what stood there, None where nothing did."""

    name: str
    before: str | None
    after: str


@dataclass(frozen=True, kw_only=True)
class Unwritten:
    """What was not written, and why. `line` counts from 1.

    `missed`: whether who reads the file gets something else than `value`; `found` is what it says instead.
    """

    name: str
    value: Value
    reason: str
    line: int | None = None
    missed: bool = True
    found: str | None = None


@dataclass(frozen=True, kw_only=True)
class Merged:
    """The new text. `same` are values that the file had already; `has_origin`: whether comments could be put there.

    `unwritten` has the lines of the new text, `refused` has the same with the lines of the old one.
    """

    text: str
    changes: tuple[Change, ...]
    unwritten: tuple[Unwritten, ...]
    refused: tuple[Unwritten, ...]
    same: tuple[str, ...]
    has_origin: bool


def look_up(base: str, key: str, name: str) -> Callable[[tuple[str, ...]], Node | None]:
    """Reads what a file has below a key, by path. Raises as `merge`."""
    text = _Text(base, key_parts(key), name)
    return text.effective


def key_parts(key: str) -> list[str]:
    """`a.b\\.c` as `a` and `b.c`."""
    return [part.replace("\\.", ".") for part in _DOT.split(key) if part]


def merge(base: str, key: str, settings: Sequence[Setting], comments: Sequence[str], name: str) -> Merged:
    """`base` with the settings under `key` (`a.b.c`, numbers count items of lists, `\\.` is a dot; empty: at the top).

    Values are spliced into the text, nothing else changes. What has no safe place is not written and listed. `comments`
    go above the key, marked, in the place of those of an earlier merge. `name` is the file's, for errors.

    Raises:
        InvalidRequest: the file is no YAML, nothing can be put under the key, or no setting has a place.
    """
    text, old = _Text(base, key_parts(key), name), _Text(base, key_parts(key), name)
    text.require_place(key)
    changes, same, refused = [], [], []
    for setting in settings:
        before = text.source(setting)
        try:
            if text.write(setting, settings):
                changes.append(Change(name=setting.name, before=before, after=written(setting.value)))
            elif text.effective(setting.path) is not None:
                same.append(setting.name)
        except Unsafe as why:
            refused.append((setting, why))
    unwritten = tuple(text.explained(setting, why, settings) for setting, why in refused)
    if unwritten and not changes and not same:
        first = unwritten[0]
        where = "" if first.line is None else f" (line {first.line})"
        raise InvalidRequest(
            f"--merge: nothing was written to {name}: none of the {len(unwritten)} values has a place there; "
            f"{first.name}, for one: {first.reason}{where}."
        )
    has_origin = text.tell_origin(comments) if changes or same else False
    if has_origin and refused:  # what stands below the comments has moved
        unwritten = tuple(text.explained(setting, why, settings) for setting, why in refused)
    return Merged(
        text=text.text,
        changes=tuple(changes),
        unwritten=unwritten,
        refused=tuple(old.explained(setting, why, settings) for setting, why in refused),
        same=tuple(same),
        has_origin=has_origin,
    )


class _Text:
    """The text as it is so far, the place in it, and which of its documents that is in."""

    def __init__(self, text: str, key: list[str], name: str) -> None:
        self.text = text
        self._key = key
        self._name = name
        self._trees = read_file(text, name) or [None]
        self._document = self._chosen()
        self._json = _is_json(text)

    def require_place(self, key: str) -> None:
        """Raises InvalidRequest if nothing can be put under the key."""
        root = self._trees[self._document]
        if root is not None and root.kind != "mapping" and not self._key:
            raise InvalidRequest(f"--merge: {self._name} holds no mapping, so it has no keys.")
        try:
            find(self.text, root, [*self._key, "\0"], None, order=(), strict_json=self._json)
        except Unsafe as unsafe:
            where = "" if unsafe.line is None else f", line {unsafe.line}"
            raise InvalidRequest(f"--merge: {key or 'the top'} of {self._name}{where}: {unsafe.reason}.") from unsafe

    def effective(self, path: tuple[str, ...]) -> Node | None:
        """What a reader of the file gets at a path below the key."""
        return effective(self._trees[self._document], [*self._key, *path])

    def source(self, setting: Setting) -> str | None:
        """What stands in the setting's place; None if nothing does."""
        node = self._trees[self._document]
        for part in (*self._key, *setting.path):
            node = _child(node, part)
        if node is None:
            return None
        return self.text[node.start : node.end].strip() if not node.empty else ""

    def write(self, setting: Setting, settings: Sequence[Setting]) -> bool:
        """Put a setting in its place; False if it is there. Raises Unsafe."""
        target = self._find(setting, settings)
        if target.candidates is None:
            return False
        for pieces in target.candidates:
            if self._accept(pieces, [*self._key, *setting.path], setting.value):
                return True
        raise Unsafe("it cannot be written without changing something else", target.line)

    def tell_origin(self, comments: Sequence[str]) -> bool:
        """Put marked comments above the key; False where none can stand."""
        node, above = self._trees[self._document], None
        for part in self._key:
            entries = node.entries(part) if node is not None and node.kind == "mapping" else []
            if not entries or node is None or node.flow:
                return False
            above, node = entries[0]
        pieces = None if self._json else marked(self.text, above, comments)
        if pieces is None:
            return False
        told = apply(self.text, pieces)
        trees = _read(told)
        if trees is None or len(trees) != len(self._trees) or not all(map(equal, self._trees, trees)):
            return False
        self.text, self._trees = told, trees
        return True

    def explained(self, setting: Setting, unsafe: Unsafe, settings: Sequence[Setting]) -> Unwritten:
        """Why a setting was not written, with the lines of the text as it is now."""
        why = unsafe
        try:
            line = self._find(setting, settings).line or unsafe.line
        except Unsafe as now:
            why, line = now, now.line
        found = self.effective(setting.path)
        said = setting.value is None if found is None else says(found, setting.value)
        return Unwritten(
            name=setting.name,
            value=setting.value,
            reason=why.reason,
            line=line,
            missed=why.overruled or not said,
            found=None if said or found is None or found.kind != "scalar" or len(found.text) > 40 else found.text,
        )

    def _find(self, setting: Setting, settings: Sequence[Setting]) -> Target:
        order = [one.path[-1] for one in settings if one.path[:-1] == setting.path[:-1]]
        root = self._trees[self._document]
        path = [*self._key, *setting.path]
        return find(self.text, root, path, setting.value, order=order, rivals=setting.rivals, strict_json=self._json)

    def _accept(self, pieces: Iterable[Piece], path: Sequence[str], value: Value) -> bool:
        spliced = apply(self.text, pieces)
        trees = _read(spliced)
        if trees is None or len(trees) != len(self._trees):
            return False
        for number, (old, new) in enumerate(zip(self._trees, trees, strict=True)):
            intended = only_changed(old, new, path, value) if number == self._document else equal(old, new)
            if not intended:
                return False
        self.text, self._trees = spliced, trees
        return True

    def _chosen(self) -> int:
        if len(self._trees) == 1:
            return 0
        having = [number for number, tree in enumerate(self._trees) if self._key and _reaches(tree, self._key)]
        if len(having) != 1:
            raise InvalidRequest(
                f"--merge: {self._name} holds {len(self._trees)} documents, and {len(having)} of them have the key "
                f"{'.'.join(self._key) or '(none was named)'}; name one that only one document has."
            )
        return having[0]


def _reaches(tree: Node | None, path: Sequence[str]) -> bool:
    node = tree
    for part in path:
        node = _child(node, part)
    return node is not None


def _child(node: Node | None, part: str) -> Node | None:
    if node is None or node.kind not in ("mapping", "sequence"):
        return None
    if node.kind == "sequence":
        return node.items[int(part)] if part.isdecimal() and int(part) < len(node.items) else None
    entries = node.entries(part)
    return entries[0][1] if entries else None


def _read(text: str) -> list[Node | None] | None:
    try:
        return read_trees(text) or [None]
    except Unreadable:
        return None


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text.removeprefix("\ufeff")), dict)
    except (ValueError, RecursionError):
        return False
