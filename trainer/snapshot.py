"""Snapshots: all that a trial is, on disk, whole or not at all."""

import os
import shutil
import stat
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save

from trainer.errors import SnapshotError
from trainer.failpoints import Failpoint, reach
from trainer.spec import FileDigest, SnapshotManifest, SnapshotRef, Usage

MANIFEST = "manifest.json"
ADAPTER = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
OPTIMIZER = "optimizer.safetensors"
EVAL_LOSSES = "eval_losses.safetensors"


@dataclass(frozen=True)
class TrialState:
    """Everything needed to go on with a trial bit for bit, on the CPU.

    `adapter` maps PEFT names to float32 weights, `optimizer` maps `exp_avg.<name>` and `exp_avg_sq.<name>`;
    `eval_losses` has `loss` float32 and `tokens` int32 of every evaluation example, None between rungs.
    """

    trial_digest: str
    base_digest: str
    examples_seen: int
    step: int
    total_examples: int
    micro_batch: int
    divergence: dict[str, Any]
    adapter: dict[str, torch.Tensor]
    adapter_config: str
    optimizer: dict[str, torch.Tensor]
    eval_loss: float | None = None
    eval_tokens: int | None = None
    eval_losses: dict[str, torch.Tensor] | None = None


@dataclass(frozen=True)
class Snapshot:
    """A snapshot that was verified and read."""

    ref: SnapshotRef
    state: TrialState


class SnapshotStore:
    """A folder of snapshots. Whatever a path says, nothing outside the folder is read or written."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def write(self, path: str, state: TrialState, usage: Usage) -> SnapshotRef:
        """Write `state` to `path` under the root; what an earlier run of the same attempt left there is replaced.

        Files are synced before the manifest, the manifest before the rename: a snapshot that can be seen is whole. It
        is read back from the disk before the rename, so that what it replaces goes only once it is verified.

        Raises:
            SnapshotError: the path leads outside the root, or what was written cannot be read back.
            OSError: the disk is full or gone; nothing of the new snapshot stays.
        """
        target = self._inside(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.parent / f".partial-{uuid.uuid4().hex}"
        partial.mkdir()
        try:
            reach(Failpoint.SNAPSHOT_BEFORE_FILES)
            files = {name: _write(partial / name, content) for name, content in _contents(state).items()}
            reach(Failpoint.SNAPSHOT_BEFORE_MANIFEST)
            content = _manifest(state, usage, files).model_dump_json(indent=1).encode()
            files[MANIFEST] = _write(partial / MANIFEST, content)
            _sync_folder(partial)
            for name, expected in files.items():
                _verify(partial / name, expected)
            reach(Failpoint.SNAPSHOT_BEFORE_RENAME)
            _replace(partial, target)
            reach(Failpoint.SNAPSHOT_AFTER_RENAME)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        return SnapshotRef(path=path, digest=sha256(content).hexdigest(), examples_seen=state.examples_seen)

    def read(self, ref: SnapshotRef) -> Snapshot:
        """Read a snapshot, each file checked against its digest before it is parsed. Raises SnapshotError."""
        folder = self._inside(ref.path)
        content = _read(folder / MANIFEST)
        if sha256(content).hexdigest() != ref.digest:
            raise SnapshotError(f"snapshot {ref.path}: the manifest is not the one that was recorded")
        try:
            manifest = SnapshotManifest.model_validate_json(content)
            files = {name: _verified(folder, name, expected) for name, expected in manifest.files.items()}
            return Snapshot(ref, _state(manifest, files))
        except (ValidationError, KeyError, UnicodeDecodeError, SafetensorError) as error:
            raise SnapshotError(f"snapshot {ref.path} cannot be understood: {error}") from error

    def remove(self, ref: SnapshotRef) -> None:
        """Delete a snapshot that nothing needs any more; one that is gone already is no error.

        Raises:
            SnapshotError: the path leads outside the root.
        """
        shutil.rmtree(self._inside(ref.path), ignore_errors=True)

    def newest(
        self, refs: Iterable[SnapshotRef], trial_digest: str, base_digest: str
    ) -> tuple[Snapshot | None, tuple[str, ...]]:
        """The snapshot with most examples that verifies and belongs to trial and base, and the paths passed over."""
        discarded: list[str] = []
        for ref in newest_first(refs):
            try:
                snapshot = self.read(ref)
            except SnapshotError:
                discarded.append(ref.path)
                continue
            if (snapshot.state.trial_digest, snapshot.state.base_digest) == (trial_digest, base_digest):
                return snapshot, tuple(discarded)
            discarded.append(ref.path)
        return None, tuple(discarded)

    def find(self, folder: str, trial_digest: str) -> list[SnapshotRef]:
        """References to the snapshots directly in `folder` that say they are of this trial; not verified."""
        refs = []
        for path in sorted(self._inside(folder).glob(f"*/{MANIFEST}")):
            try:
                content = _read(path)
                manifest = SnapshotManifest.model_validate_json(content)
                name = path.parent.relative_to(self.root).as_posix()
                ref = SnapshotRef(path=name, digest=sha256(content).hexdigest(), examples_seen=manifest.examples_seen)
            except (SnapshotError, ValidationError):
                continue
            if manifest.trial_digest == trial_digest:
                refs.append(ref)
        return refs

    def _inside(self, path: str) -> Path:
        target = self.root
        for part in path.split("/"):
            target = target / part
            if part in ("", ".", "..") or target.is_symlink():
                raise SnapshotError(f"snapshot path {path!r} leads outside the snapshot folder")
        return target


def newest_first(refs: Iterable[SnapshotRef]) -> list[SnapshotRef]:
    """By examples seen, most first; the given order decides between equals."""
    return sorted(refs, key=lambda ref: -ref.examples_seen)


def _contents(state: TrialState) -> dict[str, bytes]:
    contents = {
        ADAPTER: save(state.adapter, metadata={"format": "pt"}),
        ADAPTER_CONFIG: state.adapter_config.encode(),
        OPTIMIZER: save(state.optimizer),
    }
    if state.eval_losses is not None:
        contents[EVAL_LOSSES] = save(state.eval_losses)
    return contents


def _manifest(state: TrialState, usage: Usage, files: dict[str, FileDigest]) -> SnapshotManifest:
    return SnapshotManifest(
        trial_digest=state.trial_digest,
        base_digest=state.base_digest,
        examples_seen=state.examples_seen,
        step=state.step,
        total_examples=state.total_examples,
        micro_batch=state.micro_batch,
        divergence=state.divergence,
        eval_loss=state.eval_loss,
        eval_tokens=state.eval_tokens,
        usage=usage,
        files=files,
    )


def _state(manifest: SnapshotManifest, files: dict[str, bytes]) -> TrialState:
    return TrialState(
        trial_digest=manifest.trial_digest,
        base_digest=manifest.base_digest,
        examples_seen=manifest.examples_seen,
        step=manifest.step,
        total_examples=manifest.total_examples,
        micro_batch=manifest.micro_batch,
        divergence=manifest.divergence,
        adapter=load(files[ADAPTER]),
        adapter_config=files[ADAPTER_CONFIG].decode(),
        optimizer=load(files[OPTIMIZER]),
        eval_loss=manifest.eval_loss,
        eval_tokens=manifest.eval_tokens,
        eval_losses=load(files[EVAL_LOSSES]) if EVAL_LOSSES in files else None,
    )


def _write(path: Path, content: bytes) -> FileDigest:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return FileDigest(sha256=sha256(content).hexdigest(), size_bytes=len(content))


def _read(path: Path) -> bytes:
    name = f"snapshot file {path.parent.name}/{path.name}"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise SnapshotError(f"{name} is not a regular file")
            return file.read()
    except OSError as error:
        raise SnapshotError(f"{name} cannot be read: {error.strerror}") from error


def _verified(folder: Path, name: str, expected: FileDigest) -> bytes:
    if name not in (ADAPTER, ADAPTER_CONFIG, OPTIMIZER, EVAL_LOSSES):
        raise SnapshotError(f"{name!r} is no file of a snapshot")
    content = _read(folder / name)
    if len(content) != expected.size_bytes or sha256(content).hexdigest() != expected.sha256:
        raise SnapshotError(f"snapshot file {folder.name}/{name} is damaged")
    return content


def _verify(path: Path, expected: FileDigest) -> None:
    """Raises SnapshotError unless the disk, and not only the page cache, holds the file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        if file_digest(file, "sha256").hexdigest() != expected.sha256:
            raise SnapshotError(f"snapshot file {path.name} does not read back as it was written: check the disk")


def _replace(partial: Path, target: Path) -> None:
    aside = target.parent / f".aside-{uuid.uuid4().hex}"
    try:
        target.rename(aside)
    except FileNotFoundError:
        partial.rename(target)
    else:
        partial.rename(target)
        shutil.rmtree(aside, ignore_errors=True)
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
