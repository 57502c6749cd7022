"""Snapshots: all that a trial is, in a store, whole or not at all."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save

from trainer.common.errors import SnapshotError
from trainer.snapshots.stores.base import ADAPTER, ADAPTER_CONFIG, EVAL_LOSSES, OPTIMIZER, LogFile, Store
from trainer.snapshots.stores.verify import verified_manifest
from trainer.spec import DataFingerprints, FileDigest, SnapshotManifest, SnapshotRef, Usage


@dataclass(frozen=True)
class TrialState:
    """Everything needed to go on with a trial bit for bit, on the CPU.

    `adapter` maps PEFT names to float32 weights, `optimizer` maps `exp_avg.<name>` and `exp_avg_sq.<name>`;
    `eval_losses` has `loss` float32 and `tokens` int32 of every evaluation example, None between rungs.
    """

    trial_digest: str
    base_digest: str
    data_fingerprints: DataFingerprints
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
    """Snapshots of trials in a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def write(self, path: str, state: TrialState, usage: Usage) -> SnapshotRef:
        """Write `state` to `path` in the store; what an earlier run of the same attempt left there is replaced.

        A snapshot that can be seen is whole. It is read back before, so that what it replaces goes only then.

        Raises:
            SnapshotError: the path leads outside the store, or what was written cannot be read back.
            OSError: the store is full, gone or does not answer; nothing of the new snapshot can be seen.
        """
        contents = _contents(state)
        files = {
            name: FileDigest(sha256=sha256(content).hexdigest(), size_bytes=len(content))
            for name, content in contents.items()
        }
        manifest = _manifest(state, usage, files).model_dump_json(indent=1).encode()
        self._store.write(path, contents, manifest)
        return SnapshotRef(path=path, digest=sha256(manifest).hexdigest(), examples_seen=state.examples_seen)

    def read(self, ref: SnapshotRef) -> Snapshot:
        """Read a snapshot, each file checked against its digest before it is parsed.

        Raises:
            SnapshotError: it is missing, damaged or not what was recorded.
            OSError: the store does not answer.
        """
        manifest = verified_manifest(self._store, ref)
        try:
            files = {name: self._store.read(ref.path, manifest.files, name) for name in manifest.files}
            return Snapshot(ref, _state(manifest, files))
        except (KeyError, UnicodeDecodeError, SafetensorError) as error:
            raise SnapshotError(f"snapshot {ref.path} cannot be understood: {error}") from error

    @property
    def location(self) -> str:
        """Where the store is: an absolute path or a URL."""
        return self._store.location

    def files(self, ref: SnapshotRef) -> dict[str, FileDigest]:
        """The files of a snapshot by name. Raises as `read` does."""
        return verified_manifest(self._store, ref).files

    def remove(self, ref: SnapshotRef) -> None:
        """Delete a snapshot that nothing needs any more; one that cannot be deleted now is no error.

        Raises:
            SnapshotError: the path leads outside the store.
        """
        with suppress(OSError):
            self._store.remove(ref.path)

    def newest(
        self, refs: Iterable[SnapshotRef], trial_digest: str, base_digest: str
    ) -> tuple[Snapshot | None, tuple[str, ...]]:
        """The snapshot with most examples that verifies and belongs to trial and base, and the paths passed over.

        Raises:
            OSError: the store does not answer, so nobody knows.
        """
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
        for path in self._store.snapshots_in(folder):
            try:
                content = self._store.manifest(path)
                manifest = SnapshotManifest.model_validate_json(content)
                ref = SnapshotRef(path=path, digest=sha256(content).hexdigest(), examples_seen=manifest.examples_seen)
            except (SnapshotError, ValidationError):
                continue
            if manifest.trial_digest == trial_digest:
                refs.append(ref)
        return refs

    def open_log(self, snapshot_dir: str) -> LogFile:
        """The log of the trial whose slice has this `snapshot_dir`: <study>/<trial>/log.jsonl."""
        return self._store.open_log("/".join(snapshot_dir.split("/")[:2]))


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
        data_fingerprints=state.data_fingerprints,
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
        data_fingerprints=manifest.data_fingerprints,
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
