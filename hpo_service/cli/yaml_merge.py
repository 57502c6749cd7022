"""Values merged into a YAML file of the user's, whose comments, order and other keys stay."""

import io
import re
from collections.abc import Mapping
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError
from ruamel.yaml.util import load_yaml_guess_indent

from hpo_service.core.errors import InvalidRequest

_MARK = "# hpo: "
_MARKED = re.compile(r"^[ ]*# hpo: ")


def merge(base: str, key: str, text: str, name: str) -> str:
    """`base` with the values of the exported `text` under `key` (`a.b.c`, empty: at the top).

    Values that are there already are replaced, keys that `text` does not know stay. The comments at the top of `text`
    go above the key, marked, and take the place of those of an earlier merge. `name` is the file's, for errors.

    Raises:
        InvalidRequest: the file is no YAML mapping, or something on the way to the key is none.
    """
    path = [part for part in key.split(".") if part]
    comments = [line.removeprefix("#").strip() for line in _heading(text)]
    values = _load(text, "the export")
    document = _load(_unmarked(base, path, name), name)
    place = document
    for part in path:
        inner = place.setdefault(part, CommentedMap())
        if inner is None:
            inner = place[part] = CommentedMap()
        if not isinstance(inner, dict):
            raise InvalidRequest(f"--merge: {part!r} of {key} in {name} holds {inner!r}, which has no fields.")
        place = inner
    _update(place, values)
    return _with_comments(_dump(document, base), path, comments, name)


def _update(place: Any, values: Mapping[str, Any]) -> None:  # noqa: ANN401
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(place.get(key), dict):
            _update(place[key], value)
        else:
            place[key] = value


def _heading(text: str) -> list[str]:
    lines = text.splitlines()
    ends = next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return lines[:ends]


def _unmarked(base: str, path: list[str], name: str) -> str:
    """Without the comments of an earlier merge at this key."""
    lines = base.splitlines(keepends=True)
    last = _line_of(base, path, name)
    if last is None:
        return base
    first = last
    while first > 0 and _MARKED.match(lines[first - 1]):
        first -= 1
    if not path:
        while last < len(lines) and _MARKED.match(lines[last]):
            last += 1
    return "".join([*lines[:first], *lines[last:]])


def _with_comments(merged: str, path: list[str], comments: list[str], name: str) -> str:
    lines = merged.splitlines(keepends=True)
    number = _line_of(merged, path, name) or 0
    indent = " " * (len(lines[number]) - len(lines[number].lstrip(" "))) if path else ""
    return "".join([*lines[:number], *(f"{indent}{_MARK}{comment}\n" for comment in comments), *lines[number:]])


def _line_of(text: str, path: list[str], name: str) -> int | None:
    """The 0-based line of a key; of the top, the first. None if there is no such key."""
    place = _load(text, name)
    number = 0
    for part in path:
        if not isinstance(place, CommentedMap) or part not in place:
            return None
        number = int(place.lc.key(part)[0])
        place = place[part]
    return number


def _load(text: str, name: str) -> Any:  # noqa: ANN401
    """The mapping. Raises InvalidRequest."""
    try:
        document = _reader().load(text)
    except YAMLError as error:
        raise InvalidRequest(f"--merge: {name} is not YAML: {str(error).splitlines()[0]}.") from error
    if document is None:
        document = CommentedMap()
    if not isinstance(document, dict):
        raise InvalidRequest(f"--merge: {name} holds no mapping, so it has no keys.")
    return document


def _dump(document: Any, base: str) -> str:  # noqa: ANN401
    """Indented as `base` is."""
    yaml = _reader()
    _, sequence, offset = load_yaml_guess_indent(base)
    nested = (value.lc.col for value in document.values() if isinstance(value, CommentedMap) and value.lc.col)
    yaml.indent(mapping=next(nested, 2), sequence=max(sequence or 2, (offset or 0) + 2), offset=offset or 0)
    stream = io.StringIO()
    yaml.dump(document, stream)
    return stream.getvalue()


def _reader() -> Any:  # noqa: ANN401
    yaml: Any = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    return yaml
