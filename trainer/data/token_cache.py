"""Tokenized data on disk, made once for every study, trial and worker that needs them.

`<folder>/<fingerprint>/` holds the shards and a manifest. It is written beside itself and renamed when complete, under
a lock, so that of several workers one tokenizes and the others wait; the rename is right without the lock as well. The
folder's time of change says when it was used last. Whoever makes a new one removes those that nobody used for long.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.common.errors import TrainerError
from trainer.data.fingerprint import data_digest
from trainer.data.row_encoding import ENCODING, EncoderSettings
from trainer.data.rows import TEMPLATE, RowError, data_files, file_parts, read_rows
from trainer.data.shards import ShardSize, TokenTable, read_shard
from trainer.data.tokenization import Tokenization, tokenize_here, tokenize_in_processes
from trainer.data.tokenizer import tokenizer_digest
from trainer.spec import DataSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MANIFEST = "manifest.json"
#: size of the part of the data that becomes one shard, whatever the number of processes
_PART_BYTES = 32 * 1024 * 1024
#: below this many bytes the start of further processes costs more than they save
_PARALLEL_BYTES = 32 * 1024 * 1024
#: what nobody opened for so long is tokenized again when it is wanted again
_UNUSED_SECONDS = 30 * 24 * 3600.0
#: an entry, or with a dot before and random characters after it what is written or was left half-written
_ENTRY = re.compile(r"(\.?)([0-9a-f]{64})(\.[^.]+)?")


class TokenCacheError(TrainerError):
    """The folder of tokenized data cannot be used."""


@dataclass(frozen=True)
class TokenCache:
    """Tokenized data sets below `folder`; new ones are made by up to `processes` processes at a time."""

    folder: Path
    processes: int

    def fingerprint(self, path: str, spec: DataSpec, max_length: int, tokenizer: "PreTrainedTokenizerBase") -> str:
        """SHA-256 of all that decides the tokens. Raises RowError, TokenCacheError."""
        identity = {
            "encoding": ENCODING,
            "template": TEMPLATE,
            "data": self.data_digest(path),
            "tokenizer": tokenizer_digest(tokenizer.name_or_path),
            "format": spec.format,
            "learn": spec.learn,
            "max_length": max_length,
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    def data_digest(self, path: str) -> str:
        """See `trainer.data.fingerprint.data_digest`."""
        with self._usable():
            return data_digest(path, self.folder)

    def table(self, path: str, spec: DataSpec, max_length: int, tokenizer: "PreTrainedTokenizerBase") -> TokenTable:
        """The tokens of a file or folder of rows, mapped; they are made if no one has yet.

        Raises:
            RowError: the data are unusable, or changed meanwhile.
            UserError: the tokenizer does not fit the data.
            TokenCacheError: the folder cannot be written or read.
        """
        fingerprint = self.fingerprint(path, spec, max_length, tokenizer)
        with self._usable():
            if (table := _open(self.folder / fingerprint)) is not None:
                return table
            with _locked(self.folder, fingerprint):
                if (table := _open(self.folder / fingerprint)) is None:
                    self._remove_unused(fingerprint)
                    self._make(fingerprint, path, spec, max_length, tokenizer)
                    table = _open(self.folder / fingerprint)
        if table is None:
            raise TokenCacheError(
                f"the tokenized data in {self.folder / fingerprint} cannot be read; delete the folder"
            )
        if self.fingerprint(path, spec, max_length, tokenizer) != fingerprint:
            raise RowError(path, 0, "it changed while it was read; start again once it is complete")
        return table

    def _remove_unused(self, wanted: str) -> None:
        """Remove entries that nobody used for long, and what processes that were killed left; `wanted` is locked.

        What another process has mapped stays readable for it.
        """
        oldest = time.time() - _UNUSED_SECONDS
        for path in list(self.folder.iterdir()):
            match = _ENTRY.fullmatch(path.name)
            if match is None or (not match[1] and (match[2] == wanted or _used_at(path) > oldest)):
                continue
            if match[2] == wanted:
                shutil.rmtree(path, ignore_errors=True)
                continue
            # Whoever writes there holds the lock.
            with suppress(BlockingIOError), _locked(self.folder, match[2], wait=False):
                shutil.rmtree(path, ignore_errors=True)

    def _make(
        self, fingerprint: str, path: str, spec: DataSpec, max_length: int, tokenizer: "PreTrainedTokenizerBase"
    ) -> None:
        files = data_files(path)
        first = next(read_rows(path, spec.format))
        tasks = Tokenization(
            model_path=tokenizer.name_or_path,
            format=first.format,
            settings=EncoderSettings(spec.learn, max_length),
            parts=tuple(part for file in files for part in file_parts(file, _PART_BYTES)),
        )
        partial = Path(tempfile.mkdtemp(prefix=f".{fingerprint}.", dir=self.folder))
        try:
            size_bytes = sum(file.stat().st_size for file in files)
            if self.processes == 1 or len(tasks.parts) == 1 or size_bytes < _PARALLEL_BYTES:
                sizes = tokenize_here(tasks, partial, tokenizer)
            else:
                sizes = tokenize_in_processes(tasks, partial, self.processes)
            _write_manifest(partial, sizes)
            _publish(partial, self.folder / fingerprint)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    @contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            yield
        except OSError as error:
            raise TokenCacheError(
                f"the folder of tokenized data {self.folder} cannot be used: {error.strerror or error}; "
                "name another one with --token-cache"
            ) from error


def _open(folder: Path) -> TokenTable | None:
    """The table in `folder`, None if it is not there or not whole."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_bytes())
        chunks = []
        for shard in manifest["shards"]:
            if (folder / shard["name"]).stat().st_size != shard["size_bytes"]:
                return None
            chunks += read_shard(folder / shard["name"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    with suppress(OSError):
        os.utime(folder)
    return TokenTable(chunks)


def _used_at(folder: Path) -> float:
    """When an entry was used last; now if another process just removed it."""
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:
        return time.time()


def _write_manifest(folder: Path, sizes: list[ShardSize]) -> None:
    shards = []
    for shard, size in zip(sorted(folder.glob("*.arrow")), sizes, strict=True):
        with shard.open("rb") as file:
            os.fsync(file.fileno())
        shards.append({"name": shard.name, "size_bytes": shard.stat().st_size, **asdict(size)})
    (folder / _MANIFEST).write_text(json.dumps({"version": 1, "shards": shards}))


def _publish(partial: Path, target: Path) -> None:
    """Put a complete folder in its place; one that is there already and is whole stays."""
    try:
        os.rename(partial, target)
    except OSError:
        if _open(target) is not None:
            return
        broken = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        os.rename(target, broken / "damaged")
        os.rename(partial, target)
        shutil.rmtree(broken, ignore_errors=True)


@contextmanager
def _locked(folder: Path, fingerprint: str, *, wait: bool = True) -> Iterator[None]:
    """Hold the exclusive lock of an entry, which ends with the process at the latest.

    Raises:
        BlockingIOError: another process holds it, unless this one is to wait.
    """
    with (folder / f"{fingerprint}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
