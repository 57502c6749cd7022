"""What Weights & Biases' client wrote into its folder offline, read from its files."""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

_HEADER_BYTES = 7
_BLOCK_BYTES = 32768
_FULL, _FIRST, _LAST = 1, 2, 4


@dataclass
class OfflineRun:
    """All that was written of a run, in one or several files. `history` has a row a step."""

    names: set[str] = field(default_factory=set)
    groups: set[str] = field(default_factory=set)
    tags: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    artifacts: list[tuple[str, str, tuple[str, ...], tuple[str, ...]]] = field(default_factory=list)
    exit_codes: list[int] = field(default_factory=list)


def read_runs(folder: Path) -> dict[str, OfflineRun]:
    """By id."""
    runs: dict[str, OfflineRun] = defaultdict(OfflineRun)
    for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        run = runs[path.stem.removeprefix("run-")]
        for content in _records(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(content)
            _take(run, record)
    return dict(runs)


def _take(run: OfflineRun, record: Any) -> None:
    match record.WhichOneof("record_type"):
        case "run":
            run.names.add(record.run.display_name)
            run.groups.add(record.run.run_group)
            run.tags = tuple(record.run.tags) or run.tags
            run.config |= _items(record.run.config.update)
        case "config":
            run.config |= _items(record.config.update)
        case "history":
            run.history.append(_items(record.history.item) | {"_step": record.history.step.num})
        case "summary":
            run.summary |= _items(record.summary.update)
        case "artifact":
            files = tuple(sorted(entry.path for entry in record.artifact.manifest.contents))
            run.artifacts.append(
                (record.artifact.name, record.artifact.type, tuple(sorted(record.artifact.aliases)), files)
            )
        case "exit":
            run.exit_codes.append(record.exit.exit_code)


def _items(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def _records(content: bytes) -> Iterator[bytes]:
    """LevelDB's log format, behind a header of the same length as a record's."""
    at, parts = _HEADER_BYTES, b""
    while at + _HEADER_BYTES <= len(content):
        room = _BLOCK_BYTES - at % _BLOCK_BYTES
        if room < _HEADER_BYTES:
            at += room
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        if kind == 0:  # the rest of the block is empty
            at += room
            continue
        part = content[at + _HEADER_BYTES : at + _HEADER_BYTES + length]
        at += _HEADER_BYTES + length
        parts = part if kind in (_FULL, _FIRST) else parts + part
        if kind in (_FULL, _LAST):
            yield parts
