"""The micro-batch that a trial gets, room among neighbours, and what happens when memory runs out all the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import BaseModel as Message

import trainer.training.engines.resident as resident_module
from trainer.common.errors import MemoryShortage
from trainer.data.batches import Batch
from trainer.data.dataset import TrialData
from trainer.data.token_cache import TokenCache
from trainer.memory.micro_batch import Admission, MemoryPlan, total_memory_bytes, usable_memory_bytes
from trainer.memory.peak_estimate import MemoryPrediction
from trainer.model.base_model import BaseModel
from trainer.snapshots.snapshot import SnapshotStore
from trainer.snapshots.stores.folder import FolderStore
from trainer.spec import Outcome, Slice, SliceResult, SnapshotRef, StartSlice, TrialSpec
from trainer.training.engines.resident import ResidentEngine, ResidentTrial
from trainer.worker.loop import Turns
from trainer.worker.resident_trials import Residents
from trainer.worker.slice_run import SliceRun

MakeSpec = Callable[..., TrialSpec]
#: the model's own size does not matter here
PLENTY = 2**40


@pytest.fixture
def usable(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What an engine that is made from now on may use: the last of these."""
    limits = [PLENTY]
    monkeypatch.setattr(resident_module, "usable_memory_bytes", lambda _: limits[-1])
    return limits


@pytest.fixture
def residents(token_cache: TokenCache) -> Residents:
    return Residents(torch.device("cpu"), 8, token_cache)


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    return SnapshotStore(FolderStore(tmp_path))


def a_slice(spec: TrialSpec, number: int, until: int = 74, *refs: SnapshotRef) -> Slice:
    folder = f"1/{number}/{until}/1"
    return Slice(slice_id=number, attempt=1, trial=spec, until_examples=until, snapshot_dir=folder, snapshots=refs)


def run(residents: Residents, store: SnapshotStore, slice_: Slice) -> SliceResult:
    running, result = SliceRun(slice_, residents, store, lambda _: None), None
    while result is None:
        result = running.tick()
    return result


def planner(engine: ResidentEngine, usable_bytes: int) -> Callable[..., MemoryPlan]:
    """`Admission.plan` for another device."""
    admission = Admission(engine._admission._architecture, "sdpa", usable_bytes)

    def plan(spec: TrialSpec, resumed: int | None = None) -> MemoryPlan:
        data: TrialData = engine._load(spec)
        return admission.plan(spec, data, resumed)

    return plan


def test_the_largest_micro_batch_that_fits_is_taken(engine: ResidentEngine, make_spec: MakeSpec) -> None:
    spec = make_spec(micro_batch=12, effective_batch=16, eval_batch=1)
    sizes = {}
    for micro_batch in (12, 6, 3, 1):
        smaller = make_spec(micro_batch=micro_batch, effective_batch=16, eval_batch=1)
        sizes[micro_batch] = planner(engine, PLENTY)(smaller).prediction.total
    assert sorted(sizes.values(), reverse=True) == list(sizes.values())
    for micro_batch, needed in sizes.items():
        assert planner(engine, needed)(spec).micro_batch == micro_batch
    assert planner(engine, PLENTY)(make_spec(micro_batch=64, effective_batch=8)).micro_batch == 8
    with pytest.raises(MemoryShortage, match=r"needs 0\.00 GiB with one example .* lower data\.max_length") as caught:
        planner(engine, sizes[1] - 1)(spec)
    assert caught.value.predicted_bytes == sizes[1]


def test_the_evaluation_batch_is_chosen_as_well(engine: ResidentEngine, make_spec: MakeSpec) -> None:
    spec = make_spec(micro_batch=1, eval_batch=8)
    whole = planner(engine, PLENTY)(spec)
    assert (whole.eval_batch, whole.prediction.evaluation > whole.prediction.training) == (8, True)
    smaller = planner(engine, whole.prediction.total - 1)(spec)
    assert (smaller.micro_batch, smaller.eval_batch) == (1, 4)


def test_other_rows_in_the_same_file_are_looked_at_again(
    engine: ResidentEngine, make_spec: MakeSpec, row_files: tuple[Path, Path], tmp_path: Path
) -> None:
    """As many rows, each longer."""
    rows = tmp_path / "train.jsonl"
    spec, content = make_spec(train=str(rows), micro_batch=4), row_files[0].read_text()
    rows.write_text(content)
    before = engine.plan(spec, None).prediction
    rows.write_text(content.replace('"output": "', '"output": "river stone light small runs under over '))
    assert engine.plan(spec, None).prediction.training > before.training


def test_a_resumed_trial_keeps_its_micro_batch(engine: ResidentEngine, make_spec: MakeSpec) -> None:
    plan = planner(engine, PLENTY)
    assert (plan(make_spec(), 2).micro_batch, plan(make_spec(), 2).halved) == (2, True)
    assert (plan(make_spec(), 4).micro_batch, plan(make_spec(), 4).halved) == (4, False)


def test_what_cannot_fit_is_told_before_anything_is_allocated(
    residents: Residents, store: SnapshotStore, make_spec: MakeSpec, usable: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    usable.append(1000)
    monkeypatch.setattr(ResidentEngine, "admit", None)
    result = run(residents, store, a_slice(make_spec(), 1))
    assert result.outcome is Outcome.OOM
    assert result.predicted_memory_bytes is not None
    assert "with one example at a time" in result.message


def run_out_of_memory(monkeypatch: pytest.MonkeyPatch, fails: Callable[[Batch, int], bool]) -> None:
    """Let the loss of a batch fail as CUDA does; `fails` gets the batch and how often it was asked."""
    whole, calls = BaseModel.nll, iter(range(10**9))

    def nll(base: BaseModel, batch: Batch) -> torch.Tensor:
        if fails(batch, next(calls)):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return whole(base, batch)

    monkeypatch.setattr(BaseModel, "nll", nll)


def test_running_out_of_memory_halves_the_micro_batch_once(
    residents: Residents, store: SnapshotStore, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of an accumulation; what follows is what a trial with half the micro-batch does, to the bit."""
    # The first four steps of eight examples, then the second micro-batch of the fifth.
    run_out_of_memory(monkeypatch, lambda batch, call: call == 9)
    spec = make_spec(lora_dropout=0.1, eval_batch=4)
    result = run(residents, store, a_slice(spec, 1))
    monkeypatch.undo()
    (notice,) = (notice for notice in result.notices if notice.kind == "oom_halved")
    assert (result.outcome, result.micro_batch, notice.step, notice.values["micro_batch"]) == (Outcome.DONE, 2, 4, 4)
    assert result.usage.steps == 10
    assert result.snapshot is not None
    assert store.read(result.snapshot).state.micro_batch == 2
    plain = run(residents, store, a_slice(make_spec(lora_dropout=0.1, eval_batch=4), 2))
    assert plain.eval_loss == pytest.approx(result.eval_loss, abs=1e-5)


def test_the_retried_step_is_the_step_of_half_the_micro_batch(
    engine: ResidentEngine, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = engine.admit(make_spec(lora_dropout=0.1), None)
    run_out_of_memory(monkeypatch, lambda batch, call: call == 1)
    with pytest.raises(torch.OutOfMemoryError):
        next(engine.advance(trial, 74))
    assert (trial.step, trial.watch.step) == (0, 0)
    assert all(weight.grad is None for weight in trial.adapter.parameters)
    assert engine.halve(trial)
    half = engine.admit(make_spec(lora_dropout=0.1, micro_batch=2), None)
    assert [step.loss for step in engine.advance(trial, 74)] == [step.loss for step in engine.advance(half, 74)]
    assert not engine.halve(trial)


def test_running_out_of_memory_twice_is_reported(
    residents: Residents, store: SnapshotStore, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_out_of_memory(monkeypatch, lambda batch, call: call >= 6)
    spec = make_spec()
    result = run(residents, store, a_slice(spec, 1))
    assert (result.outcome, result.micro_batch, result.examples_seen) == (Outcome.OOM, 2, 24)
    assert [notice.kind for notice in result.notices] == ["oom_halved"]
    assert "with micro-batch 2" in result.message
    assert "were predicted" in result.message
    engine = residents.engine(spec)
    assert isinstance(engine, ResidentEngine)
    assert not any(layer.lora_A for layer in engine._base.model.modules() if hasattr(layer, "lora_A"))


def test_memory_that_runs_out_in_an_evaluation_halves_its_batch(
    residents: Residents, store: SnapshotStore, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_out_of_memory(monkeypatch, lambda batch, call: batch.examples > 5)
    result = run(residents, store, a_slice(make_spec(eval_batch=8), 1))
    assert (result.outcome, result.eval_tokens is not None) == (Outcome.DONE, True)
    assert [notice.kind for notice in result.notices] == ["oom_halved"]


def test_idle_neighbours_leave_for_the_one_that_comes(
    residents: Residents, store: SnapshotStore, make_spec: MakeSpec, usable: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The least recently used first, and no more than is needed; the micro-batch stays what it is."""
    evicted = []
    evict = ResidentEngine.evict

    def watched(engine: ResidentEngine, trial: ResidentTrial) -> None:
        evicted.append(trial.spec)
        evict(engine, trial)

    monkeypatch.setattr(ResidentEngine, "evict", watched)
    specs = [make_spec(seed=seed) for seed in range(4)]
    prediction: MemoryPrediction = residents.engine(specs[0]).plan(specs[0], None).prediction
    residents.cool()
    usable.append(prediction.total + 2 * prediction.resting)
    results = [run(residents, store, a_slice(spec, number)) for number, spec in enumerate(specs)]
    assert evicted == specs[:1]
    assert {result.micro_batch for result in results} == {4}
    again = run(residents, store, a_slice(specs[1], 9, 74, *[results[1].snapshot] if results[1].snapshot else []))
    assert again.eval_loss == results[1].eval_loss
    assert evicted == specs[:1]


def test_a_trial_waits_for_running_ones_if_it_must(
    residents: Residents, store: SnapshotStore, make_spec: MakeSpec, usable: list[int]
) -> None:
    specs = [make_spec(seed=seed) for seed in range(2)]
    alone = [run(residents, store, a_slice(spec, 10 + seed)).eval_loss for seed, spec in enumerate(specs)]
    prediction = residents.engine(specs[0]).plan(specs[0], None).prediction
    residents.cool()
    usable.append(prediction.total)
    said: list[Message] = []
    turns = Turns(residents, store, said.append)
    for number, spec in enumerate(specs):
        turns.obey(StartSlice(slice=a_slice(spec, number)))
    most = 0
    while turns.busy:
        turns.tick()
        most = max(most, len(residents._running))
    results = [message for message in said if isinstance(message, SliceResult)]
    assert most == 1
    assert [result.eval_loss for result in results] == alone


def test_the_limit_is_the_device_model_not_what_is_free() -> None:
    device = torch.device("cpu")
    before = usable_memory_bytes(device)
    held: Any = torch.ones(2**26)
    assert usable_memory_bytes(device) == before < total_memory_bytes(device)
    assert held.sum() == 2**26
