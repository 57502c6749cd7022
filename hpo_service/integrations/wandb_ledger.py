"""What Weights & Biases was told, a small file a run: its client does not say, least of all offline."""

import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote


@dataclass(kw_only=True)
class Told:
    """Of a run. `step` is the last one, and `names` the metrics at it."""

    step: int = -1
    names: list[str] = field(default_factory=list)
    parameters: bool = False
    tags: dict[str, str] = field(default_factory=dict)
    state: str | None = None
    files: list[str] = field(default_factory=list)  #: their paths


@dataclass(kw_only=True)
class Versions:
    """Of a registered model. `champion_since` is when the promotion was made that the alias was last moved for."""

    keys: list[str] = field(default_factory=list)
    champion_since: str = ""


_Content = TypeVar("_Content", Told, Versions)


class Ledger:
    """Files below `folder`, replaced whole."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def run(self, run_id: str) -> AbstractContextManager[Told]:
        """What a run was told; what the block changes is kept when it ends well."""
        return _kept(self._folder / f"{run_id}.json", Told)

    def model(self, name: str) -> AbstractContextManager[Versions]:
        """The same of a model's versions."""
        return _kept(self._folder / f"model-{quote(name, safe='')}.json", Versions)  # no two names are one file


@contextmanager
def _kept(path: Path, kind: type[_Content]) -> Iterator[_Content]:
    content = kind(**_read(path))
    before = asdict(content)
    yield content
    if asdict(content) != before:
        _write(path, asdict(content))


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return found


def _write(path: Path, content: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with part.open("w", encoding="utf-8") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
