"""A folder with a model and rows, and an API over a test's database."""

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from shutil import rmtree
from typing import Any

from fastapi.testclient import TestClient
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.api.app import create_app
from hpo_service.api.http.auth import create_key
from hpo_service.core.settings import Settings
from hpo_service.dispatcher.loop import Dispatcher
from hpo_service.executors.fake import FakeExecutor
from hpo_service.storage.tables import DEFAULT_PROJECT_ID, Project, Slice
from tests.dispatching import loss_of, make
from trainer.spec import DataFingerprints, FileDigest, SnapshotManifest, SnapshotRef, Usage

ROWS = 200
EMPTY_SAFETENSORS = (2).to_bytes(8, "little") + b"{}"
SNAPSHOT_FILES = {
    "adapter_config.json": b'{"r": 8}',
    "adapter_model.safetensors": b"weights" * 1000,
    "optimizer.safetensors": b"o",
}
Json = dict[str, Any]
Hpo = Callable[..., tuple[str, str]]
"""Runs a command; its output and what it said."""


def make_inputs(root: Path) -> None:
    """`model/`, `train.jsonl` and `eval.jsonl` that pass the checks before training."""
    model = root / "model"
    model.mkdir(parents=True)
    (model / "config.json").write_text('{"model_type": "llama"}')
    (model / "model.safetensors").write_bytes(EMPTY_SAFETENSORS)
    (model / "tokenizer.json").write_text("{}")
    for name, rows in (("train", ROWS), ("eval", 60)):
        lines = [json.dumps({"instruction": f"say {row}", "output": str(row)}) for row in range(rows)]
        (root / f"{name}.jsonl").write_text("\n".join(lines) + "\n")


def spec(name: str = "first", **changes: Any) -> Json:
    """A study that can be created; `changes` replace whole keys, None removes one."""
    document: Json = {
        "metadata": {"name": name},
        "model": {"path": "model"},
        "data": {"train": "train.jsonl", "eval": "eval.jsonl"},
        "space": {
            "learning_rate": {"low": 1e-5, "high": 1e-2, "log": True},
            "lora_r": {"choices": [4, 8, 16]},
        },
        "baseline": {"learning_rate": 1e-4, "lora_r": 8},
        "search": {"deterministic": True, "seed": 3},
        "budget": {"max_trials": 6},
    }
    document.update(changes)
    return {key: value for key, value in document.items() if value is not None}


def settings(root: Path, **changes: Any) -> Settings:
    """Everything below one folder; a test may ask as often as it likes."""
    limits = {"requests_per_second": 0, "failed_logins_per_minute": 0}
    return Settings(home=root / "home", roots=(root,), **limits | changes)


def serve(engine: Engine, settings: Settings) -> TestClient:
    """A client without credentials; use it in a `with` block to have the dashboard running too."""
    return TestClient(create_app(settings, engine), raise_server_exceptions=False)


def make_key(sessions: sessionmaker[Session], project_id: int = DEFAULT_PROJECT_ID) -> str:
    """A fresh API key."""
    with sessions.begin() as session:
        return create_key(session, project_id, "test")


def make_project(sessions: sessionmaker[Session], name: str) -> int:
    """Another tenant."""
    with sessions.begin() as session:
        project = Project(name=name)
        session.add(project)
        session.flush()
        return project.id


def make_dispatcher(sessions: sessionmaker[Session]) -> tuple[Dispatcher, FakeExecutor]:
    """A real dispatcher whose slices end at once; its trials end with the rows of `make_inputs`."""
    return make(sessions, FakeExecutor(loss_of, total_examples=ROWS))


def write_snapshot(store: Path, path: str, *, examples_seen: int = 1) -> SnapshotRef:
    """A whole snapshot on disk."""
    folder = store / path
    folder.mkdir(parents=True)
    for name, content in SNAPSHOT_FILES.items():
        (folder / name).write_bytes(content)
    manifest = SnapshotManifest(
        trial_digest="t",
        base_digest="b",
        data_fingerprints=DataFingerprints(train="0" * 64),
        examples_seen=examples_seen,
        step=1,
        total_examples=ROWS,
        micro_batch=8,
        divergence={},
        eval_loss=1.0,
        eval_tokens=1,
        usage=Usage(),
        files={
            name: FileDigest(sha256=sha256(content).hexdigest(), size_bytes=len(content))
            for name, content in SNAPSHOT_FILES.items()
        },
    )
    content = manifest.model_dump_json().encode()
    (folder / "manifest.json").write_bytes(content)
    return SnapshotRef(path=path, digest=sha256(content).hexdigest(), examples_seen=examples_seen)


def newest_slice(session: Session, number: int, study_id: int | None = None) -> Slice:
    """Of a trial of the study, by default of the one that was made first."""
    query = select(Slice).where(Slice.trial_number == number).order_by(Slice.study_id, Slice.until_examples.desc())
    if study_id is not None:
        query = query.where(Slice.study_id == study_id)
    row = session.scalars(query.limit(1)).one()
    assert isinstance(row, Slice)
    return row


def keep_snapshot(root: Path, sessions: sessionmaker[Session], number: int, study_id: int | None = None) -> None:
    """A real snapshot on disk, known as the newest of the trial."""
    with sessions.begin() as session:
        row = newest_slice(session, number, study_id)
        path = f"{row.study_id}/{row.optuna_trial_id}/{row.until_examples}/kept"
        if any(kept["path"] == path for kept in row.snapshots):
            return
        store = root / "home" / "snapshots"
        rmtree(store / path, ignore_errors=True)  # the slice ended after it was kept, and said what it left itself
        ref = write_snapshot(store, path, examples_seen=row.until_examples)
        row.snapshots = [ref.model_dump(), *row.snapshots]


def bearer(key: str) -> dict[str, str]:
    """The header of a program."""
    return {"Authorization": f"Bearer {key}"}
