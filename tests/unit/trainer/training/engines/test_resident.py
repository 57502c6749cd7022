"""A trial's numbers depend on the trial alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer.common.errors import Diverged, SnapshotError, UserError
from trainer.snapshots.snapshot import Snapshot, SnapshotStore
from trainer.snapshots.stores.folder import FolderStore
from trainer.spec import TrialSpec, Usage
from trainer.training.engines.resident import ResidentEngine, ResidentTrial

MakeSpec = Callable[..., TrialSpec]
Train = Callable[..., list[float]]
Evaluate = Callable[[ResidentEngine, ResidentTrial], Any]
MakeEngine = Callable[..., ResidentEngine]


def weights(trial: ResidentTrial) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in trial.adapter.parameters])


def through_disk(engine: ResidentEngine, trial: ResidentTrial, root: Path) -> Snapshot:
    store = SnapshotStore(FolderStore(root))
    return store.read(store.write("s/1", engine.snapshot(trial, None), Usage()))


def test_neighbours_change_nothing(make_engine: MakeEngine, make_spec: MakeSpec, train: Train, tmp_path: Path) -> None:
    """Alone, and with neighbours admitted, pruned and resumed mid-flight: equal bit for bit, dropout on."""
    spec = make_spec(lora_dropout=0.2)
    solo_engine = make_engine()
    solo = solo_engine.admit(spec, None)
    losses = train(solo_engine, solo)
    engine = make_engine()
    first = engine.admit(make_spec(lora_r=16, lora_dropout=0.5, target_modules="q_proj,v_proj", seed=1), None)
    train(engine, first, 8)
    trial = engine.admit(spec, None)
    second = engine.admit(make_spec(seed=0, lora_dropout=0.2, learning_rate=1e-1), None)
    company: list[float] = []
    for number, step in enumerate(engine.advance(trial, 10**9)):
        company.append(step.loss)
        train(engine, first if number in (0, 5, 7) else second, 8 * (number + 2))
        if number == 2:
            saved = through_disk(engine, first, tmp_path)
            engine.evict(first)
        if number == 4:
            first = engine.admit(first.spec, saved)
    assert company == losses
    assert torch.equal(weights(trial), weights(solo))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_resume_is_exact(
    make_engine: MakeEngine, make_spec: MakeSpec, train: Train, tmp_path: Path, dtype: str, checkpointing: bool
) -> None:
    spec = make_spec(dtype=dtype, lora_dropout=0.1, activation_checkpointing=checkpointing)
    engine = make_engine(dtype=dtype)
    whole = engine.admit(spec, None)
    losses = train(engine, whole)
    part = engine.admit(spec, None)
    before = train(engine, part, 24)
    snapshot = through_disk(engine, part, tmp_path)
    other_engine = make_engine(dtype=dtype)
    resumed = other_engine.admit(spec, snapshot)
    assert before + train(other_engine, resumed) == losses
    assert torch.equal(weights(resumed), weights(whole))


def test_rungs_and_evaluations_do_not_influence_training(
    engine: ResidentEngine, make_spec: MakeSpec, train: Train, evaluate: Evaluate
) -> None:
    spec = make_spec(lora_dropout=0.1)
    whole = engine.admit(spec, None)
    losses = train(engine, whole)
    trial = engine.admit(spec, None)
    rungs = []
    for rung in (10, 30, 50, 74):
        rungs += train(engine, trial, rung)
        evaluate(engine, trial)
    assert rungs == losses
    assert evaluate(engine, trial).loss == evaluate(engine, whole).loss


def test_checkpointing_and_recompute_keep_dropout(engine: ResidentEngine, make_spec: MakeSpec, train: Train) -> None:
    plain = engine.admit(make_spec(lora_dropout=0.3), None)
    recomputed = engine.admit(make_spec(lora_dropout=0.3, activation_checkpointing=True), None)
    assert train(engine, plain, 32) == train(engine, recomputed, 32)
    assert torch.equal(weights(plain), weights(recomputed))


def test_micro_batch_does_not_matter(engine: ResidentEngine, make_spec: MakeSpec, train: Train) -> None:
    small, large = (engine.admit(make_spec(micro_batch=size), None) for size in (2, 8))
    torch.testing.assert_close(train(engine, small), train(engine, large), atol=1e-5, rtol=0)


def test_the_last_batch_may_be_partial(engine: ResidentEngine, make_spec: MakeSpec) -> None:
    trial = engine.admit(make_spec(epochs=1.0), None)
    steps = list(engine.advance(trial, 10**9))
    assert [step.examples for step in steps] == [8, 8, 8, 8, 5]
    assert (trial.examples_seen, trial.total_examples) == (37, 37)
    assert not list(engine.advance(trial, 10**9))


def test_a_rung_is_reached_at_the_first_step_past_it(engine: ResidentEngine, make_spec: MakeSpec, train: Train) -> None:
    trial = engine.admit(make_spec(), None)
    train(engine, trial, 17)
    assert trial.examples_seen == 24
    assert trial.step == 3


def test_the_base_is_never_written_to(engine: ResidentEngine, make_spec: MakeSpec, train: Train) -> None:
    trials = [engine.admit(make_spec(seed=seed), None) for seed in range(3)]
    for trial in trials:
        train(engine, trial, 16)
    for trial in trials:
        engine.evict(trial)
    assert engine._base._compute_digest() == engine.base_digest


def test_a_touched_base_is_noticed(engine: ResidentEngine, make_spec: MakeSpec) -> None:
    trial = engine.admit(make_spec(), None)
    with torch.no_grad():
        engine._base.model.get_parameter("model.norm.weight")[5] += 1e-3
    with pytest.raises(Exception, match="changed in memory"):
        engine.evict(trial)


def test_the_global_random_stream_is_not_used(engine: ResidentEngine, make_spec: MakeSpec, train: Train) -> None:
    before = torch.random.get_rng_state()
    train(engine, engine.admit(make_spec(lora_dropout=0.2), None), 16)
    assert torch.equal(before, torch.random.get_rng_state())


def test_initialization_is_keyed_by_module(engine: ResidentEngine, make_spec: MakeSpec) -> None:
    everything = engine.admit(make_spec(), None).adapter.weights
    some = engine.admit(make_spec(target_modules="q_proj,up_proj"), None).adapter.weights
    other_seed = engine.admit(make_spec(seed=1), None).adapter.weights
    assert 0 < len(some) < len(everything)
    assert all(torch.equal(weight, everything[name]) for name, weight in some.items())
    assert not any(torch.equal(other_seed[n], w) for n, w in everything.items() if "lora_A" in n)


def test_an_exploding_trial_diverges_and_its_neighbour_does_not(
    engine: ResidentEngine, make_spec: MakeSpec, train: Train
) -> None:
    healthy = engine.admit(make_spec(), None)
    sick = engine.admit(make_spec(seed=5), None)
    with torch.no_grad():
        sick.adapter.parameters[0].fill_(float("nan"))
    with pytest.raises(Diverged, match="loss became nan"):
        train(engine, sick, 8)
    engine.evict(sick)
    alone = engine.admit(make_spec(), None)
    assert train(engine, healthy, 16) == train(engine, alone, 16)


def test_a_snapshot_of_another_trial_is_refused(engine: ResidentEngine, make_spec: MakeSpec, tmp_path: Path) -> None:
    snapshot = through_disk(engine, engine.admit(make_spec(), None), tmp_path)
    with pytest.raises(SnapshotError, match="another trial"):
        engine.admit(make_spec(seed=9), snapshot)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [("attention", {"q_proj", "k_proj", "v_proj", "o_proj"}), ("mlp", {"gate_proj", "up_proj", "down_proj"})],
)
def test_module_groups(engine: ResidentEngine, make_spec: MakeSpec, wanted: str, expected: set[str]) -> None:
    names = engine.admit(make_spec(target_modules=wanted), None).adapter.weights
    assert {name.split(".")[-3] for name in names} == expected


def test_an_unknown_module_names_what_exists(engine: ResidentEngine, make_spec: MakeSpec) -> None:
    with pytest.raises(UserError, match=r"'c_attn' is not in the model; it has down_proj, gate_proj"):
        engine.admit(make_spec(target_modules="q_proj,c_attn"), None)
