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

from hpo_service.errors import InvalidRequest, InvalidSpec

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
        return _Plain(where).value(YAML(typ="safe", pure=True).load(io.StringIO(text)))
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


class _Plain:
    """Copies what YAML gave into plain JSON values. Aliases make copies too, so a small file can become a huge one."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._left = _MAX_VALUES

    def value(self, value: object) -> object:
        """Raises InvalidSpec for what has no place in a study."""
        self._left -= 1
        if self._left < 0:
            raise InvalidSpec(f"{self._where} holds more than {_MAX_VALUES} values, aliases written out.")
        if isinstance(value, dict):
            return {str(key): self.value(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.value(item) for item in value]
        if isinstance(value, date):
            return value.isoformat()
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidSpec(f"{self._where} holds {value}; every number must be finite.")
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise InvalidSpec(f"{self._where} holds a {type(value).__name__}, which has no place in a study.")
