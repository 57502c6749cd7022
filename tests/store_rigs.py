"""Snapshot stores on folders, in memory and on S3, and what tests do to them behind their back."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pytest
import torch

import trainer.snapshots.stores.folder
from trainer.snapshots.snapshot import TrialState
from trainer.snapshots.stores import Store, open_store
from trainer.snapshots.stores.base import ADAPTER
from trainer.snapshots.stores.objects import ObjectStore
from trainer.spec import DataFingerprints

Change = Callable[[bytes], bytes | None]


class Rig(Protocol):
    """A fresh store, and what a test does behind its back."""

    store: Store

    def change(self, path: str, name: str, change: Change) -> None:
        """Rewrite a file of a snapshot, or remove it where `change` gives None."""

    def lose_bits_of(self, name: str, patch: pytest.MonkeyPatch) -> None:
        """From now on what is written under this name is not what is stored."""

    def leave_half(self, path: str) -> None:
        """What a writer leaves at `path` that was killed before the end."""


class FolderRig:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.store: Store = open_store(root)

    def change(self, path: str, name: str, change: Change) -> None:
        file = self.root / path / name
        content = change(file.read_bytes())
        if content is None:
            file.unlink()
        else:
            file.write_bytes(content)

    def lose_bits_of(self, name: str, patch: pytest.MonkeyPatch) -> None:
        write = trainer.snapshots.stores.folder._write

        def lossy(path: Path, content: bytes) -> Any:
            digest = write(path, content)
            if path.name == name:
                path.write_bytes(flip(content))
            return digest

        patch.setattr(trainer.snapshots.stores.folder, "_write", lossy)

    def leave_half(self, path: str) -> None:
        folder = (self.root / path).parent / ".partial-0"
        folder.mkdir(parents=True)
        (folder / ADAPTER).write_bytes(b"half")


class ObjectRig:
    def __init__(self, url: str) -> None:
        self.objects = ObjectStore(url)
        self.store: Store = self.objects

    def change(self, path: str, name: str, change: Change) -> None:
        keys = list(self.objects._list(self.objects._key(path)))
        (key,) = [key for key in keys if key.endswith(f"/{name}")]
        content = change(self.objects._get(key))
        if content is None:
            self.objects._delete([key])
        else:
            self.objects._put(key, content)

    def lose_bits_of(self, name: str, patch: pytest.MonkeyPatch) -> None:
        put = self.objects._put
        patch.setattr(
            self.objects, "_put", lambda key, content: put(key, flip(content) if key.endswith(name) else content)
        )

    def leave_half(self, path: str) -> None:
        self.objects._put(self.objects._key(f"{path}/0123456789abcdef/{ADAPTER}"), b"half")


def a_state(examples: int = 8, **changes: Any) -> TrialState:
    weights = torch.arange(12.0).reshape(3, 4) + examples
    state = TrialState(
        trial_digest="t",
        base_digest="b",
        data_fingerprints=DataFingerprints(train="0" * 64),
        examples_seen=examples,
        step=examples // 8,
        total_examples=64,
        micro_batch=4,
        divergence={"best": 1.5},
        adapter={"lora_A.weight": weights},
        adapter_config='{"r": 4}',
        optimizer={"exp_avg.lora_A.weight": weights / 3},
    )
    return replace(state, **changes)


def flip(content: bytes) -> bytes:
    changed = bytearray(content)
    changed[len(changed) // 2] ^= 1
    return bytes(changed)


def cut(content: bytes) -> bytes:
    return content[:-10]


def gone(_: bytes) -> None:
    return None


def paths(store: Store) -> list[str]:
    return sorted(snapshot.path for snapshot in store.look().snapshots)
