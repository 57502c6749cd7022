"""Study files: YAML or JSON from disk, with single values changed from the command line."""

import io
import math
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from hpo_service.core.errors import InvalidRequest, InvalidSpec

_MAX_BYTES = 1_048_576
_MAX_VALUES = 200_000


def read_document(path: str) -> dict[str, Any]:
    """The mapping in a YAML or JSON file; `-` is standard input. Raises InvalidSpec for anything else."""
    try:
        raw = sys.stdin.buffer.read(_MAX_BYTES + 1) if path == "-" else _read(Path(path))
        text = raw.decode("utf-8")
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise InvalidSpec(f"{path} is not UTF-8 (byte {error.start}).") from error
    if len(raw) > _MAX_BYTES:
        raise InvalidSpec(f"{path} is larger than {_MAX_BYTES} bytes; a study names its data, it does not hold it.")
    document = parse_yaml(text, path)
    if not isinstance(document, dict):
        raise InvalidSpec(f"{path} holds no mapping; a study begins with lines such as `name: first`.")
    return document


def parse_yaml(text: str, where: str) -> object:
    """Plain JSON values. Raises InvalidSpec with the line of the mistake."""
    try:
        return _plain(_load(text, where), where)
    except MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InvalidSpec(f"{where}{line}: {str(error.problem or 'not YAML').splitlines()[0]}.") from error
    except (YAMLError, ValueError, RecursionError) as error:
        raise InvalidSpec(f"{where} is not YAML: {str(error).splitlines()[0]}.") from error


def apply_settings(document: dict[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """The document with each `a.b=value` written into it; the value is YAML."""
    for setting in settings:
        path, equals, text = setting.partition("=")
        names = path.split(".")
        if not equals or not all(names):
            raise InvalidRequest(f"--set {setting} is not of the form path.to.field=value.")
        place = document
        for name in names[:-1]:
            inner = place.setdefault(name, {})
            if not isinstance(inner, dict):
                raise InvalidRequest(f"--set {setting}: {name!r} holds {inner!r}, which has no fields.")
            place = inner
        place[names[-1]] = parse_yaml(text, f"--set {setting}")
    return document


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MAX_BYTES + 1)


def _load(text: str, where: str) -> object:
    """What YAML says, if it is not too much once aliases and merges are written out: small files can become huge."""
    yaml = YAML(typ="safe", pure=True)
    node = yaml.compose(io.StringIO(text))
    if _values_in(node, {}) > _MAX_VALUES:
        raise InvalidSpec(f"{where} holds more than {_MAX_VALUES} values, aliases written out.")
    return None if node is None else yaml.constructor.construct_document(node)


def _values_in(part: object, known: dict[int, int]) -> int:
    """Nodes below a node, a tuple or a list of them, each counted as often as it is named."""
    parts = part if isinstance(part, list | tuple) else getattr(part, "value", None)
    if not isinstance(parts, list | tuple):
        return 1
    if id(parts) not in known:
        known[id(parts)] = 1  # within a circle, which cannot be written out: it is refused later
        known[id(parts)] = 1 + sum(_values_in(inner, known) for inner in parts)
    return known[id(parts)]


def _plain(value: object, where: str) -> object:
    if isinstance(value, dict):
        return {str(key): _plain(item, where) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, where) for item in value]
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidSpec(f"{where} holds {value}; every number must be finite.")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise InvalidSpec(f"{where} holds a {type(value).__name__}, which has no place in a study.")
