"""Adapters of every kind: where they start, what is exported of them, and what comes back from it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

from trainer.common.errors import SnapshotError, UserError
from trainer.model.adapter_init import start_of
from trainer.snapshots.snapshot import Snapshot, SnapshotStore
from trainer.snapshots.stores.base import ADAPTER, ADAPTER_CONFIG
from trainer.snapshots.stores.folder import FolderStore
from trainer.spec import TrialSpec, Usage
from trainer.training.engines.resident import ResidentEngine, ResidentTrial

MakeSpec = Callable[..., TrialSpec]
MakeEngine = Callable[..., ResidentEngine]
Train = Callable[..., list[float]]

KINDS: dict[str, dict[str, Any]] = {
    "default": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "pissa": {"init_lora_weights": "pissa"},
    "pissa_rslora": {"init_lora_weights": "pissa", "use_rslora": True, "lora_alpha": 6.0},
    "olora": {"init_lora_weights": "olora", "target_modules": "q_proj,down_proj"},
    "dora_olora": {"use_dora": True, "init_lora_weights": "olora"},
    "dora_pissa_rslora": {"use_dora": True, "init_lora_weights": "pissa", "use_rslora": True},
    "loraplus_neftune": {"loraplus_lr_ratio": 8.0, "neftune_noise_alpha": 5.0},
}
kinds = pytest.mark.parametrize("kind", KINDS)
IDS = torch.arange(60).reshape(3, 20)


def through_disk(engine: ResidentEngine, trial: ResidentTrial, root: Path) -> Snapshot:
    store = SnapshotStore(FolderStore(root))
    return store.read(store.write("s/1", engine.snapshot(trial, None), Usage()))


@torch.no_grad()
def logits_of(engine: ResidentEngine, trial: ResidentTrial) -> torch.Tensor:
    engine._activate(trial)
    return engine._base.model(IDS).logits  # type: ignore[no-any-return]


@kinds
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_untrained_adapter_is_the_base_to_the_bit(
    make_engine: MakeEngine, make_spec: MakeSpec, kind: str, dtype: str
) -> None:
    engine = make_engine(dtype=dtype)
    with torch.no_grad():
        expected = engine._base.model(IDS).logits
    trial = engine.admit(make_spec(dtype=dtype, **KINDS[kind]), None)
    assert torch.equal(logits_of(engine, trial), expected)


@kinds
def test_an_export_gives_the_same_logits_in_stock_peft(
    base_folder: Path, engine: ResidentEngine, make_spec: MakeSpec, train: Train, tmp_path: Path, kind: str
) -> None:
    """Also where twice the rank is exported; PEFT's loader must not start anything on its own."""
    trial = engine.admit(make_spec(lora_dropout=0.1, **KINDS[kind]), None)
    before = logits_of(engine, trial)
    train(engine, trial, 48)
    ours = logits_of(engine, trial)
    through_disk(engine, trial, tmp_path)
    base = LlamaForCausalLM.from_pretrained(base_folder, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, str(tmp_path / "s/1")).eval()
    with torch.no_grad():
        theirs = model(IDS).logits
    assert (ours - before).abs().max() > 0.1
    assert (ours - theirs).abs().max() <= 1e-5
    twice = 2 if "init_lora_weights" in KINDS[kind] else 1
    config = json.loads((tmp_path / "s/1" / ADAPTER_CONFIG).read_text())
    file = load_file(tmp_path / "s/1" / ADAPTER)
    assert config["r"] == 4 * twice
    assert config["init_lora_weights"] is True
    assert {tensor.shape[0] for name, tensor in file.items() if "lora_A" in name} == {4 * twice}
    assert file.keys() == trial.adapter.weights.keys()
    engine.evict(trial)


@kinds
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_resume_is_exact(
    make_engine: MakeEngine, make_spec: MakeSpec, train: Train, tmp_path: Path, kind: str, dtype: str
) -> None:
    spec = make_spec(dtype=dtype, lora_dropout=0.1, epochs=1.0, **KINDS[kind])
    engine = make_engine(dtype=dtype)
    whole = engine.admit(spec, None)
    losses = train(engine, whole)
    part = engine.admit(spec, None)
    before = train(engine, part, 16)
    snapshot = through_disk(engine, part, tmp_path)
    other_engine = make_engine(dtype=dtype)
    resumed = other_engine.admit(spec, snapshot)
    assert all(torch.equal(part.adapter.frozen[name], value) for name, value in resumed.adapter.frozen.items())
    assert before + train(other_engine, resumed) == losses
    assert all(torch.equal(whole.adapter.weights[name], value) for name, value in resumed.adapter.weights.items())


@pytest.mark.parametrize("kind", ["dora_pissa_rslora", "loraplus_neftune"])
def test_recomputed_activations_change_nothing(
    engine: ResidentEngine, make_spec: MakeSpec, train: Train, kind: str
) -> None:
    options = {"lora_dropout": 0.2, **KINDS[kind]}
    kept, recomputed = (
        engine.admit(make_spec(activation_checkpointing=wanted, **options), None) for wanted in (False, True)
    )
    assert train(engine, kept, 24) == train(engine, recomputed, 24)


def test_nothing_draws_from_the_global_stream_or_writes_to_the_base(
    engine: ResidentEngine, make_spec: MakeSpec, train: Train
) -> None:
    before = torch.random.get_rng_state()
    trials = [engine.admit(make_spec(lora_dropout=0.2, **options), None) for options in KINDS.values()]
    for trial in trials:
        train(engine, trial, 16)
    for trial in trials:
        engine.evict(trial)
    assert torch.equal(before, torch.random.get_rng_state())
    assert engine._base._compute_digest() == engine.base_digest
    assert not engine._base.embedding._forward_hooks


def falling(rows: int, columns: int) -> torch.Tensor:
    """A weight whose singular values fall like those of trained layers."""
    left, right = (torch.linalg.qr(torch.randn(size, 48))[0] for size in (rows, columns))
    weight: torch.Tensor = left @ torch.diag(torch.arange(1, 49) ** -0.7) @ right.T
    return weight


@pytest.mark.parametrize("rank", [1, 8, 32])
@pytest.mark.parametrize("shape", [(200, 96), (96, 200)])
def test_pissa_starts_from_the_largest_directions(rank: int, shape: tuple[int, int]) -> None:
    torch.manual_seed(1)
    weight = falling(*shape)
    start = start_of(weight, "pissa", rank, 2.0, seed=0, module_name="m")
    u, s, v = torch.linalg.svd(weight, full_matrices=False)
    best = u[:, :rank] @ torch.diag(s[:rank]) @ v[:rank]
    torch.testing.assert_close(2.0 * start.b @ start.a, best, atol=1e-5, rtol=0)
    torch.testing.assert_close(start.a.norm(dim=1), start.b.norm(dim=0))
    again = start_of(weight, "pissa", rank, 2.0, seed=7, module_name="m")
    assert torch.equal(again.a, start.a)
    assert torch.equal(again.b, start.b)


@pytest.mark.parametrize(("init", "options"), [("pissa", {}), ("olora", {}), ("olora", {"use_rslora": True})])
def test_the_base_directions_are_those_of_peft(
    base_folder: Path,
    engine: ResidentEngine,
    make_spec: MakeSpec,
    init: Literal["pissa", "olora"],
    options: dict[str, Any],
) -> None:
    """PiSSA's by a randomized decomposition, which random weights with their flat spectrum are the worst case for."""
    trial = engine.admit(make_spec(init_lora_weights=init, **options), None)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=init, **options)
    base = LlamaForCausalLM.from_pretrained(base_folder, dtype=torch.float32)
    theirs = dict(get_peft_model(base, config).named_parameters())
    for name in (name for name in trial.adapter.weights if name.endswith("lora_A.weight")):
        other = name.replace("lora_A", "lora_B")
        expected = [theirs[part.replace(".weight", ".default.weight")] for part in (other, name)]
        product = trial.adapter.weights[other] @ trial.adapter.weights[name]
        torch.testing.assert_close(product, expected[0] @ expected[1], atol=2e-3 if init == "pissa" else 1e-5, rtol=0)


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_a_rank_above_the_weights_smaller_side_starts_the_rest_like_the_default(init: str) -> None:
    torch.manual_seed(1)
    weight = torch.randn(6, 10)
    start, default = (start_of(weight, kind, 9, 1.0, seed=0, module_name="m") for kind in (init, "default"))
    torch.testing.assert_close(start.b @ start.a, weight, atol=1e-5, rtol=0)
    assert torch.equal(start.a[6:], default.a[6:])
    assert not start.b[:, 6:].any()


@pytest.mark.parametrize("harm", ["rank", "modules", "optimizer"])
def test_an_adapter_that_does_not_fit_is_refused_and_leaves_nothing(
    engine: ResidentEngine, make_spec: MakeSpec, train: Train, tmp_path: Path, harm: str
) -> None:
    spec = make_spec(init_lora_weights="olora")
    trial = engine.admit(spec, None)
    train(engine, trial, 8)
    snapshot = through_disk(engine, trial, tmp_path)
    engine.evict(trial)
    first = next(iter(snapshot.state.adapter))
    if harm == "rank":
        snapshot.state.adapter[first] = snapshot.state.adapter[first][:3]
    elif harm == "modules":
        del snapshot.state.adapter[first]
    else:
        del snapshot.state.optimizer[f"exp_avg.{first}"]
    with pytest.raises(SnapshotError, match=r"rank 4|other modules|lacks exp_avg of"):
        engine.admit(spec, snapshot)
    assert not any("lora_A" in name for name, _ in engine._base.model.named_parameters())


def test_what_needs_a_gpu_is_refused_with_the_remedy(
    engine: ResidentEngine, make_engine: MakeEngine, make_spec: MakeSpec
) -> None:
    with pytest.raises(UserError, match=r"paged_adamw_8bit needs a CUDA device .*; use adamw"):
        engine.admit(make_spec(optimizer="paged_adamw_8bit"), None)
    with pytest.raises(UserError, match=r"nf4 needs a CUDA device .*; set quantization to none"):
        make_engine(quantization="nf4")
    assert not any("lora_A" in name for name, _ in engine._base.model.named_parameters())
