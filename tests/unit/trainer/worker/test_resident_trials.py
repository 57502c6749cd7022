"""What stays on the base between slices, and what leaves when."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pydantic import BaseModel as Message
from structlog.contextvars import get_contextvars

from trainer.data.token_cache import TokenCache
from trainer.memory import micro_batch
from trainer.memory.peak_estimate import MemoryPrediction
from trainer.snapshots.snapshot import SnapshotStore
from trainer.snapshots.stores.folder import FolderStore
from trainer.spec import Progress, Slice, SliceResult, SnapshotRef, StartSlice, TrialSpec
from trainer.training.engines.resident import ResidentEngine, ResidentTrial
from trainer.worker.loop import Turns
from trainer.worker.resident_trials import Residents

MakeSpec = Callable[..., TrialSpec]


@pytest.fixture
def residents(token_cache: TokenCache) -> Residents:
    return Residents(torch.device("cpu"), 8, token_cache)


@pytest.fixture
def said() -> list[SliceResult]:
    """Results, as they come."""
    return []


@pytest.fixture
def turns(residents: Residents, said: list[SliceResult], tmp_path: Path) -> Turns:
    def hear(message: Message) -> None:
        if isinstance(message, SliceResult):
            said.append(message)

    return Turns(residents, SnapshotStore(FolderStore(tmp_path)), hear)


def start(turns: Turns, spec: TrialSpec, number: int, until: int, *refs: SnapshotRef | None) -> None:
    folder, snapshots = f"1/{number}/{until}/1", tuple(ref for ref in refs if ref is not None)
    piece = Slice(
        slice_id=number, attempt=1, trial=spec, until_examples=until, snapshot_dir=folder, snapshots=snapshots
    )
    turns.obey(StartSlice(slice=piece))


def finish(turns: Turns) -> None:
    while turns.busy:
        turns.tick()


def test_what_a_slice_logs_carries_its_ids(residents: Residents, make_spec: MakeSpec, tmp_path: Path) -> None:
    told: list[dict[str, object]] = []

    def hear(message: Message) -> None:
        if isinstance(message, Progress):
            told.append(dict(get_contextvars()))

    turns = Turns(residents, SnapshotStore(FolderStore(tmp_path)), hear)
    for number in (1, 2):
        start(turns, make_spec(), number, 16)
    finish(turns)
    assert {(fields["slice_id"], fields["attempt"]) for fields in told} == {(1, 1), (2, 1)}
    assert get_contextvars() == {}


def test_another_base_frees_what_idle_trials_hold(residents: Residents, turns: Turns, make_spec: MakeSpec) -> None:
    start(turns, make_spec(), 1, 16)
    finish(turns)
    ((_, trial),) = residents._idle.values()
    assert isinstance(trial, ResidentTrial)
    assert trial.optimizer.state
    residents.engine(make_spec(dtype="bfloat16"))
    assert not trial.optimizer.state
    assert not residents._idle


def test_a_resident_trial_that_waits_is_not_forgotten(
    residents: Residents, turns: Turns, said: list[SliceResult], make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It rests on the device while it waits for a running one, so it leaves for a third, and goes on all the same."""
    needs = {1: (40, 50), 2: (10, 10), 3: (40, 10)}
    monkeypatch.setattr(
        micro_batch,
        "predict_memory",
        lambda _architecture, spec, **_: MemoryPrediction(0, *needs[spec.training.seed], evaluation=0),
    )
    monkeypatch.setattr("trainer.training.engines.resident.usable_memory_bytes", lambda _: 95)
    evicted: list[int] = []
    evict = ResidentEngine.evict

    def watched(engine: ResidentEngine, trial: ResidentTrial) -> None:
        evicted.append(trial.spec.training.seed)
        evict(engine, trial)

    monkeypatch.setattr(ResidentEngine, "evict", watched)
    first, second, third = (make_spec(seed=seed, lora_dropout=0.1) for seed in (1, 2, 3))
    for number, until in ((9, 74), (1, 16)):
        start(turns, first, number, until)
        finish(turns)
    whole, rung = said
    evicted.clear()
    start(turns, second, 2, 74)
    turns.tick()
    start(turns, first, 3, 74, rung.snapshot)
    turns.tick()
    assert (len(residents._running), evicted) == (1, [])
    start(turns, third, 4, 16)
    while len(residents._running) == 1:
        turns.tick()
    assert evicted == [1]
    finish(turns)
    results = {result.slice_id: result for result in said}
    assert results[3].resumed_from_examples == 16
    assert results[3].eval_loss == whole.eval_loss
