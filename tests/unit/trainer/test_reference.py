"""The engine against plain transformers + PEFT: same start, same data, same numbers."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import GraniteConfig, GraniteForCausalLM, LlamaForCausalLM, get_scheduler

from trainer.engines.resident import ResidentEngine, ResidentTrial
from trainer.model import BaseModel
from trainer.snapshot import ADAPTER, SnapshotStore
from trainer.spec import ModelSpec, TrialSpec, Usage
from trainer.tokens import Batch

MakeSpec = Callable[..., TrialSpec]
Train = Callable[..., list[float]]


def labels_of(batch: Batch) -> torch.Tensor:
    labels = torch.full_like(batch.input_ids, -100).flatten()
    labels[batch.positions + 1] = batch.targets
    return labels.view_as(batch.input_ids)


def masked(trial: ResidentTrial, start: int, stop: int) -> tuple[Batch, torch.Tensor]:
    chosen = trial.order.indices(start, stop)
    batch = trial.data.train.batch(chosen, torch.device("cpu"))
    lengths = torch.from_numpy(trial.data.train.lengths[chosen])
    return batch, (torch.arange(batch.input_ids.shape[1]) < lengths[:, None]).long()


def plain_losses(folder: Path, trial: ResidentTrial, steps: int, scheduler: str) -> list[float]:
    """A loop as people write it: attention mask, labels, Hugging Face's own loss and schedule."""
    values = trial.spec.parameters
    config = LoraConfig(
        r=values.lora_r, lora_alpha=int(values.lora_alpha), target_modules="all-linear", task_type="CAUSAL_LM"
    )
    model = get_peft_model(LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32), config)
    state = dict(model.named_parameters())
    with torch.no_grad():
        for name, weight in trial.adapter.weights.items():
            state[name.replace(".weight", ".default.weight")].copy_(weight)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=values.learning_rate, weight_decay=values.weight_decay)
    total = -(-trial.total_examples // values.effective_batch)
    warmup = -(-int(values.warmup_ratio * total * 1000) // 1000)
    schedule = get_scheduler(scheduler, optimizer, warmup, total)
    losses = []
    for step in range(steps):
        start = step * values.effective_batch
        stop = min(start + values.effective_batch, trial.total_examples)
        batch, mask = masked(trial, start, stop)
        loss = model(input_ids=batch.input_ids, attention_mask=mask, labels=labels_of(batch)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, values.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(
    ("ours", "theirs"), [("cosine", "cosine"), ("linear", "linear"), ("constant", "constant_with_warmup")]
)
def test_losses_equal_a_plain_peft_loop(
    base_folder: Path, engine: ResidentEngine, make_spec: MakeSpec, train: Train, ours: str, theirs: str
) -> None:
    spec = make_spec(epochs=4.0, warmup_ratio=0.2, weight_decay=0.1, lr_scheduler=ours)
    trial = engine.admit(spec, None)
    expected = plain_losses(base_folder, trial, 19, theirs)
    losses = train(engine, trial)
    assert len(losses) == 19
    assert losses[0] - losses[-1] > 0.5
    torch.testing.assert_close(losses, expected, atol=1e-5, rtol=0)


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
    SnapshotStore(tmp_path).write("s/1", engine.snapshot(trial, evaluation), Usage())
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


@pytest.mark.parametrize("eval_batch", [1, 2, 5, 64])
def test_evaluation_does_not_depend_on_its_batch_size(
    engine: ResidentEngine, make_spec: MakeSpec, train: Train, evaluate: Callable[..., Any], eval_batch: int
) -> None:
    reference = engine.admit(make_spec(), None)
    trial = engine.admit(make_spec(eval_batch=eval_batch), None)
    train(engine, reference, 40)
    train(engine, trial, 40)
    ours, theirs = evaluate(engine, trial), evaluate(engine, reference)
    assert ours.tokens == theirs.tokens
    assert ours.loss == pytest.approx(theirs.loss, abs=1e-5)
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
    batch = Batch(ids, torch.tensor([2, 8]), torch.tensor([3, 8]), torch.tensor([0, 1]).numpy(), 12, 72)
    with torch.no_grad():
        logits = model(ids).logits.flatten(0, 1)[[2, 8]]
    expected = torch.nn.functional.cross_entropy(logits, batch.targets, reduction="none")
    torch.testing.assert_close(base.nll(batch), expected, atol=1e-6, rtol=0)
