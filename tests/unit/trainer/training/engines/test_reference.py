"""Evaluation against plain transformers + PEFT, and models that are computed in another way."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import GraniteConfig, GraniteForCausalLM, LlamaForCausalLM

from tests.plain_peft import labels_of
from trainer.data.batches import Batch
from trainer.model.base_model import BaseModel
from trainer.snapshots.snapshot import SnapshotStore
from trainer.snapshots.stores.base import ADAPTER
from trainer.snapshots.stores.folder import FolderStore
from trainer.spec import ModelSpec, TrialSpec, Usage
from trainer.training.engines.resident import ResidentEngine

MakeSpec = Callable[..., TrialSpec]
Train = Callable[..., list[float]]


def test_a_snapshot_opens_in_stock_peft(
    base_folder: Path,
    engine: ResidentEngine,
    make_spec: MakeSpec,
    train: Train,
    evaluate: Callable[..., Any],
    tmp_path: Path,
) -> None:
    trial = engine.admit(make_spec(lora_dropout=0.1, target_modules="q_proj,down_proj"), None)
    train(engine, trial, 40)
    evaluation = evaluate(engine, trial)
    SnapshotStore(FolderStore(tmp_path)).write("s/1", engine.snapshot(trial, evaluation), Usage())
    base = LlamaForCausalLM.from_pretrained(base_folder, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, str(tmp_path / "s/1")).eval()
    examples = trial.data.evaluation
    sums, tokens = 0.0, 0
    for index in range(len(examples)):
        batch = examples.batch(torch.tensor([index]).numpy(), torch.device("cpu"))
        with torch.no_grad():
            loss = model(input_ids=batch.input_ids, labels=labels_of(batch)).loss.item()
        sums, tokens = sums + loss * batch.response_tokens, tokens + batch.response_tokens
        assert loss == pytest.approx(evaluation.example_losses[index], abs=1e-5)
    assert (evaluation.loss, evaluation.tokens) == (pytest.approx(sums / tokens, abs=1e-5), tokens)
    assert load_file(tmp_path / "s/1" / ADAPTER).keys() == trial.adapter.weights.keys()


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("eval_batch", [1, 2, 8, 64])
def test_evaluation_does_not_depend_on_its_batch_size(
    engine: ResidentEngine,
    make_spec: MakeSpec,
    train: Train,
    evaluate: Callable[..., Any],
    eval_batch: int,
    packing: bool,
) -> None:
    reference = engine.admit(make_spec(), None)
    train(engine, reference, 40)
    trial = engine.admit(make_spec(eval_batch=eval_batch, packing=packing), None)
    with torch.no_grad():
        for name, weight in trial.adapter.weights.items():
            weight.copy_(reference.adapter.weights[name])
    ours, theirs = evaluate(engine, trial), evaluate(engine, reference)
    assert ours.tokens == theirs.tokens
    assert ours.loss == pytest.approx(theirs.loss, abs=1e-6)
    assert ours.example_losses == pytest.approx(theirs.example_losses, abs=1e-5)
    weighted = (ours.example_losses.astype("float64") * ours.example_tokens).sum() / ours.tokens
    assert ours.loss == pytest.approx(weighted, abs=1e-6)


def test_a_model_that_scales_its_logits_is_computed_whole(base_folder: Path, tmp_path: Path) -> None:
    """Where the head on top of the decoder is not the whole model, the shortcut is not taken."""
    shutil.copytree(base_folder, tmp_path, dirs_exist_ok=True)
    config = GraniteConfig(
        vocab_size=320,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        logits_scaling=3,
    )
    model = GraniteForCausalLM(config)
    model.train(False)
    model.save_pretrained(tmp_path)
    base = BaseModel(ModelSpec(path=str(tmp_path)), torch.device("cpu"))
    ids = torch.arange(12).reshape(2, 6)
    where = (torch.tensor([[0] * 6, [1] * 6]), torch.arange(6).repeat(2, 1))
    batch = Batch(ids, torch.tensor([2, 8]), torch.tensor([3, 8]), torch.tensor([0, 1]).numpy(), *where, 2, 12, 72)
    with torch.no_grad():
        logits = model(ids).logits.flatten(0, 1)[[2, 8]]
    expected = torch.nn.functional.cross_entropy(logits, batch.targets, reduction="none")
    torch.testing.assert_close(base.nll(batch), expected, atol=1e-6, rtol=0)
