"""Two ranks on CPU, all cases in one session of processes, against the resident engine in this one."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from trainer.common.environment import PROCESS_ENVIRONMENT
from trainer.data.token_cache import TokenCache
from trainer.distributed.worker_group import rank_environment
from trainer.model.base_model import BaseModel
from trainer.snapshots.snapshot import SnapshotStore
from trainer.snapshots.stores.folder import FolderStore
from trainer.spec import SnapshotRef, TrialSpec
from trainer.training.engines.resident import ResidentEngine, ResidentTrial
from trainer.training.evaluate import Evaluation

RANKS = 2
SESSION = Path(__file__).with_name("session.py")
ROOT = Path(__file__).parents[3]

MakeSpec = Callable[..., TrialSpec]


def variants() -> dict[str, dict[str, Any]]:
    """Trials by name: what `make_spec` takes, besides what makes them trials of two ranks."""
    room: dict[str, Any] = {"max_lora_r": 16, "target_modules": "all-linear"}
    a = {"lora_r": 8, "lora_dropout": 0.1, "zero": room}
    b = {
        "lora_r": 4,
        "lora_alpha": 16.0,
        "lora_dropout": 0.3,
        "target_modules": "q_proj,v_proj",
        "use_rslora": True,
        "weight_decay": 0.1,
        "loraplus_lr_ratio": 4.0,
        "max_grad_norm": 0.05,
        "neftune_noise_alpha": 5.0,
        "adam_beta2": 0.95,
        "seed": 3,
        "zero": room,
    }
    apart = {"config": {"stage3_param_persistence_threshold": 0}}
    return {
        "real-8": {**a, "epochs": 11.0},
        "uneven": {**a, "effective_batch": 7, "micro_batch": 2, "epochs": 1.0, "eval_batch": 3, "lr_scheduler": "wsd"},
        "a": a,
        "b": b,
        "b-fresh": {**b, "zero": room | apart},
        "bfloat16": {
            **a,
            "dtype": "bfloat16",
            "activation_checkpointing": True,
            "zero": {"offload_optimizer": True, "offload_parameters": True},
        },
        "refused-dora": {**a, "use_dora": True},
        "refused-pissa": {**a, "init_lora_weights": "pissa"},
        "refused-olora": {**a, "init_lora_weights": "olora"},
        "refused-8bit": {**a, "optimizer": "paged_adamw_8bit"},
        "refused-nf4": {**a, "quantization": "nf4"},
        "refused-rank": {**a, "lora_r": 32},
        "refused-modules": {**a, "zero": room | {"target_modules": "q_proj"}},
    }


@pytest.fixture(scope="module")
def specs(make_spec: MakeSpec) -> dict[str, TrialSpec]:
    return {name: make_spec(**values, ranks=RANKS) for name, values in variants().items()}


@pytest.fixture(scope="module")
def session(specs: dict[str, TrialSpec], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """(folder, results) of one session of two ranks."""
    folder = tmp_path_factory.mktemp("zero")
    (folder / "specs.json").write_text(json.dumps({name: spec.model_dump() for name, spec in specs.items()}))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    started = time.monotonic()
    ranks = [
        subprocess.Popen(
            [sys.executable, SESSION, folder],
            env={**os.environ, **PROCESS_ENVIRONMENT, "OMP_NUM_THREADS": "1", **rank_environment(rank, RANKS, port)},
            cwd=ROOT,
            stdout=(folder / f"rank-{rank}.log").open("wb"),
            stderr=subprocess.STDOUT,
        )
        for rank in range(RANKS)
    ]
    try:
        for rank, process in enumerate(ranks):
            status = process.wait(timeout=240)
            assert status == 0, (folder / f"rank-{rank}.log").read_text()[-4000:]
    finally:
        for process in ranks:
            process.kill()
    results = json.loads((folder / "results.json").read_text())
    return folder, results | {"seconds": time.monotonic() - started}


@pytest.fixture(scope="module")
def results(session: tuple[Path, dict[str, Any]]) -> dict[str, Any]:
    return session[1]


@pytest.fixture(scope="module")
def one_rank(specs: dict[str, TrialSpec], token_cache: TokenCache) -> Callable[[str], tuple[ResidentEngine, TrialSpec]]:
    """The resident engine for a trial of the session, and the trial as one of one rank."""
    engines: dict[str, ResidentEngine] = {}

    def find(name: str) -> tuple[ResidentEngine, TrialSpec]:
        spec = specs[name]
        if spec.model.dtype not in engines:
            engines[spec.model.dtype] = ResidentEngine(BaseModel(spec.model, torch.device("cpu")), token_cache)
        training = spec.training.model_copy(update={"ranks": 1})
        return engines[spec.model.dtype], spec.model_copy(update={"training": training})

    return find


@pytest.fixture(scope="module")
def resident(one_rank: Any) -> Callable[..., dict[str, Any]]:
    """Runs a trial of the session on one rank in a resident engine."""

    @cache
    def run(name: str, until: int = 10**9) -> dict[str, Any]:
        engine, spec = one_rank(name)
        trial = engine.admit(spec, None)
        steps = list(engine.advance(trial, until))
        return {
            "losses": [step.loss for step in steps],
            "norms": [step.gradient_norm for step in steps],
            "tokens": sum(step.tokens for step in steps),
            "flops": sum(step.flops for step in steps),
            "adapter": {key: weight.detach() for key, weight in trial.adapter.weights.items()},
            "digest": engine.base_digest,
        }

    return run


def evaluated(engine: ResidentEngine, trial: ResidentTrial) -> Evaluation:
    batches = engine.evaluate(trial)
    while True:
        try:
            next(batches)
        except StopIteration as end:
            evaluation: Evaluation = end.value
            return evaluation


def difference(one: list[float], other: list[float]) -> float:
    assert len(one) == len(other) > 0
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def test_no_rank_holds_the_whole_base(results: dict[str, Any]) -> None:
    for part in results["partition"]:
        assert part["mine"] <= -(-part["all"] // RANKS) + 64
        assert part["gathered"] == 0
        assert part["my_adapters"] <= -(-part["adapters"] // RANKS) + 64


def test_the_digest_does_not_depend_on_the_ranks(results: dict[str, Any], resident: Any) -> None:
    assert results["digest"] == resident("a", 8)["digest"]
    assert results["bfloat16-digest"] == resident("bfloat16", 8)["digest"]
    assert results["digest"] != results["bfloat16-digest"]


def test_rank_8_in_rank_16_is_a_real_rank_8_over_50_steps(results: dict[str, Any], resident: Any) -> None:
    expected = resident("real-8", 400)
    ours = results["real-8"]
    assert len(ours["losses"]) == 50
    assert difference(ours["losses"], expected["losses"]) <= 1e-5
    assert difference(ours["norms"], expected["norms"]) <= 1e-4
    assert (ours["tokens"], ours["flops"]) == (expected["tokens"], expected["flops"])
    assert ours["parameters"] == sum(weight.numel() for weight in expected["adapter"].values())


def test_ranks_with_unequal_shares_agree_with_one_rank(results: dict[str, Any], resident: Any) -> None:
    expected = resident("uneven")
    assert difference(results["uneven"]["losses"], expected["losses"]) <= 1e-5
    assert results["uneven"]["tokens"] == expected["tokens"]


@pytest.mark.parametrize("name", ["real-8", "uneven"])
def test_evaluation_does_not_depend_on_the_ranks(session: Any, specs: Any, one_rank: Any, name: str) -> None:
    """The snapshot of two ranks goes on on one, where the same adapter has the same loss on every example."""
    folder, results = session
    content = (folder / "snapshots" / name / "manifest.json").read_bytes()
    ref = SnapshotRef(path=name, digest=sha256(content).hexdigest(), examples_seen=0)
    snapshot = SnapshotStore(FolderStore(folder / "snapshots")).read(ref)
    engine, spec = one_rank(name)
    trial = engine.admit(spec, replace(snapshot, state=replace(snapshot.state, trial_digest=spec.digest())))
    evaluation = evaluated(engine, trial)
    assert abs(results[name]["eval_loss"] - evaluation.loss) <= 1e-6
    assert difference(results[name]["example_losses"], evaluation.example_losses.tolist()) <= 1e-5
    assert evaluation.tokens == snapshot.state.eval_tokens


def test_ranks_take_the_micro_batch_that_was_planned(results: dict[str, Any]) -> None:
    """Where memory is short, half of it: the same effective batch, so the same losses."""
    tight = results["tight"]
    assert (tight["planned"], tight["largest"]) == (2, 2)
    assert difference(tight["losses"], results["a-first"]) <= 1e-5


def test_b_trains_as_the_resident_engine_trains_it(results: dict[str, Any], resident: Any) -> None:
    """Its own rank, modules, scaling, dropout, noise, clipping, decay and rates, though a came before."""
    assert difference(results["b-after-a"], resident("b", 48)["losses"]) <= 1e-5


def test_b_after_a_is_b_in_a_fresh_engine(results: dict[str, Any]) -> None:
    assert results["b-after-a"] == results["b-fresh"]
    assert results["b-after-a-eval"] == results["b-fresh-eval"]


def test_a_again_is_a_bit_for_bit(results: dict[str, Any]) -> None:
    assert results["a-again"] == results["a-first"]
    assert results["a-again-eval"] == results["a-first-eval"]
    assert all(all(same) for same in results["a-again-bitwise"])


def test_trials_that_take_turns_do_not_see_each_other(results: dict[str, Any]) -> None:
    assert results["turns"] == {"a": results["a-first"], "b": results["b-after-a"]}


def test_what_a_trial_does_not_use_stays_exactly_zero(session: Any) -> None:
    whole = load_file(session[0] / "whole.safetensors")
    used = unused = 0
    for key, tensor in whole.items():
        down = key.endswith("lora_A.weight")
        rows = tensor if down else tensor.T
        own = 4 if ".q_proj." in key or ".v_proj." in key else 0
        assert torch.count_nonzero(rows[own:]) == 0, key
        unused += rows[own:].numel()
        used += int(torch.count_nonzero(rows[:own]))
    assert used > 0
    assert unused > 0


def test_resume_is_exact(results: dict[str, Any]) -> None:
    assert results["resumed"] == results["a-first"]
    assert "another trial" in results["foreign"]


def test_a_nan_on_one_rank_ends_the_trial_on_all(results: dict[str, Any]) -> None:
    assert len(set(results["nan"])) == 1
    assert results["nan"][0].startswith("Diverged: the training loss became nan")
    assert results["a-after-nan"] == results["a-first"]


def test_a_failure_of_one_rank_is_known_to_all(results: dict[str, Any]) -> None:
    assert set(results["oom"]) == {"OutOfMemory: rank 1: out of memory: host memory is full"}
    assert results["told"] == ["to all", "to all"]


def test_what_cannot_be_partitioned_is_refused(results: dict[str, Any]) -> None:
    expected = {
        "refused-dora": "use_dora needs the whole base",
        "refused-pissa": "init_lora_weights pissa needs the whole base",
        "refused-olora": "init_lora_weights olora needs the whole base",
        "refused-8bit": "optimizer paged_adamw_8bit cannot be partitioned",
        "refused-nf4": "quantization nf4 cannot be partitioned",
        "refused-rank": "lora_r 32 is above training.zero.max_lora_r 16",
        "refused-modules": "not among training.zero.target_modules q_proj",
    }
    assert results["refused"].keys() == expected.keys()
    for name, words in expected.items():
        assert results["refused"][name].startswith("UserError: ")
        assert words in results["refused"][name]


def test_the_adapter_is_gathered_whole_and_loads_in_peft(session: Any, base_folder: Path, resident: Any) -> None:
    folder = session[0] / "snapshots" / "real-8"
    expected = resident("real-8", 400)["adapter"]
    saved = load_file(folder / "adapter_model.safetensors")
    assert saved.keys() == expected.keys()
    assert max(float((saved[key] - expected[key]).abs().max()) for key in saved) <= 1e-4
    moments = load_file(folder / "optimizer.safetensors")
    assert moments.keys() == {f"{moment}.{key}" for key in saved for moment in ("exp_avg", "exp_avg_sq")}
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32), folder)
    loaded = {key.replace(".default", ""): weight for key, weight in model.named_parameters() if "lora_" in key}
    assert all(torch.equal(loaded[key], weight) for key, weight in saved.items())


def test_bfloat16_with_offload_and_checkpointing(results: dict[str, Any], resident: Any) -> None:
    expected = resident("bfloat16", 24)
    assert difference(results["bfloat16"]["losses"], expected["losses"]) <= 1e-3


def test_a_swap_costs_a_fraction_of_a_reload(results: dict[str, Any]) -> None:
    swaps = sorted(results["swap_ms"])
    assert swaps[len(swaps) // 2] < min(results["start_ms"]) / 5
