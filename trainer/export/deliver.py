"""`python -m trainer deliver`: a merge or a quantization as a job, from the snapshot store into the snapshot store."""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from hashlib import file_digest
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from trainer.common.errors import TrainerError, UserError
from trainer.export.arguments import add_merge_arguments, add_quantize_arguments
from trainer.export.judged_rows import JudgedRows, write_judged_rows
from trainer.export.manifest import Manifest, read_manifest
from trainer.snapshots.stores import Store, open_store
from trainer.snapshots.stores.base import ADAPTER, ADAPTER_CONFIG
from trainer.snapshots.stores.verify import open_files
from trainer.spec import Artifact, DataSpec, FileDigest, MergeAdapter, QuantizeModel, SnapshotRef, digest_of
from trainer.worker.job_input import first_line, wait_for_the_end

_task: TypeAdapter[MergeAdapter | QuantizeModel] = TypeAdapter(MergeAdapter | QuantizeModel)


def deliver(options: argparse.Namespace) -> dict[str, Any]:
    """Do the task on stdin; its report. Whatever ends it early, the store holds the whole artifact or nothing of it.

    Raises:
        UserError: the task is none, or asks for what the model or this machine cannot do.
        DataError: the rows to judge on are unusable.
        TrainerError: what it starts from is damaged, or a tool failed.
        OSError: the store is full or does not answer.
    """
    try:
        task = _task.validate_json(first_line(sys.stdin.fileno()))
    except ValidationError as error:
        raise UserError(f"the task is no step of a delivery: {error.errors()[0]['msg']}") from error
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    options.scratch.mkdir(parents=True, exist_ok=True)
    store = open_store(options.snapshots)
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        scratch = Path(folder)
        step = _Step(store, scratch, options.threads)
        artifact = step.merge(task) if isinstance(task, MergeAdapter) else step.quantize(task)
    return artifact.model_dump(mode="json")


class _Step:
    """One step with what it works with."""

    def __init__(self, store: Store, scratch: Path, threads: int) -> None:
        self._store = store
        self._scratch = scratch
        self._threads = str(threads)

    def merge(self, task: MergeAdapter) -> Artifact:
        adapter = self._adapter(task.adapter)
        rows = write_judged_rows(task.data, self._scratch)
        with self._store.building(task.folder, self._scratch) as folder:
            arguments = ["--model", task.model, "--adapter", str(adapter), "-o", str(folder)]
            self._run("merge", add_merge_arguments, arguments, task.data, rows)
            return _artifact(task.folder, folder)

    def quantize(self, task: QuantizeModel) -> Artifact:
        rows = write_judged_rows(task.data, self._scratch)
        calibration = ["--calibration", str(rows.calibration)] if task.variant == "gptq-w4a16" else []
        with (
            self._store.fetched(task.merged, task.files, self._scratch) as merged,
            self._store.building(task.folder, self._scratch) as folder,
        ):
            arguments = ["--model", str(merged), "--type", task.variant, "-o", str(folder), *calibration]
            self._run("quantize", add_quantize_arguments, arguments, task.data, rows)
            return _artifact(task.folder, folder)

    def _adapter(self, snapshot: SnapshotRef) -> Path:
        """A folder with the adapter that PEFT can read."""
        folder = self._scratch / "adapter"
        folder.mkdir()
        for name, _, file in open_files(self._store, snapshot, (ADAPTER, ADAPTER_CONFIG)):
            with file, (folder / name).open("wb") as copy:
                shutil.copyfileobj(file, copy)
        return folder

    def _run(
        self,
        verb: str,
        add_arguments: Callable[[argparse.ArgumentParser], None],
        arguments: list[str],
        data: DataSpec,
        rows: JudgedRows,
    ) -> None:
        parser = argparse.ArgumentParser(prog=verb)
        add_arguments(parser)
        judging = ["--eval-data", str(rows.evaluation), "--format", rows.format, "--max-length", str(data.max_length)]
        options = parser.parse_args([*arguments, *judging, "--threads", self._threads])
        getattr(import_module(f"trainer.export.{verb}"), verb)(options)


def _artifact(path: str, folder: Path) -> Artifact:
    """What was made, with the digest of every file."""
    manifest = read_manifest(folder)
    if manifest is None or manifest.quality is None:
        raise TrainerError("the step left no manifest with a judgement")
    files = {file.relative_to(folder).as_posix(): _digest(file) for file in sorted(folder.rglob("*")) if file.is_file()}
    quality = manifest.quality
    return Artifact(
        path=path,
        files=files,
        sha256=digest_of(files),
        perplexity_before=quality.perplexity_before,
        perplexity_after=quality.perplexity_after,
        prompt=quality.prompt,
        generated_before=quality.generated_before,
        generated_after=quality.generated_after,
        tool=manifest.recipe.tool,
        versions=_versions(manifest),
    )


def _versions(manifest: Manifest) -> dict[str, str]:
    return {name: str(version) for name, version in manifest.recipe.versions.items()}


def _digest(file: Path) -> FileDigest:
    with file.open("rb") as content:
        return FileDigest(sha256=file_digest(content, "sha256").hexdigest(), size_bytes=file.stat().st_size)


def _end_with_stdin() -> None:
    """Who asked is gone: end, with what was started. A job leads a process group of its own."""
    wait_for_the_end(sys.stdin.fileno())
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
