"""Packed examples: the same numbers as alone, whatever lies beside them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, MistralConfig, MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM

from trainer.common.errors import UserError
from trainer.data.batches import Batch, collate
from trainer.data.row_encoding import Encoded
from trainer.model.base_model import BaseModel
from trainer.spec import ModelSpec, TrialSpec
from trainer.training.engines.resident import ResidentEngine

MakeSpec = Callable[..., TrialSpec]
CPU = torch.device("cpu")
LENGTHS = (30, 5, 17, 2, 44, 9, 12, 23, 8)


def example(length: int, seed: int) -> Encoded:
    ids = np.random.default_rng(seed).integers(2, 300, length).astype(np.int32)
    spans = [1, length] if length < 8 else [length // 3, length // 2, length // 2 + 1, length]
    return Encoded(ids, np.array(spans, dtype=np.int32))


@pytest.fixture
def examples() -> list[Encoded]:
    return [example(length, seed) for seed, length in enumerate(LENGTHS)]


@pytest.fixture(params=["sdpa", "eager"])
def base(base_folder: Path, request: pytest.FixtureRequest) -> BaseModel:
    return BaseModel(ModelSpec(path=str(base_folder), attention=request.param), CPU)


def example_losses(base: BaseModel, batch: Batch) -> list[torch.Tensor]:
    nll = base.nll(batch)
    return [nll[torch.from_numpy(batch.row_of == number)] for number in range(batch.examples)]


def test_rows_are_filled_first_fit_longest_first(examples: list[Encoded]) -> None:
    batch = collate(examples, CPU, 50)
    assert batch.packed
    assert [sorted(set(row.tolist()) - {-1}) for row in batch.example_of] == [[1, 4], [0, 2, 3], [5, 6, 7], [8]]
    again = batch.example_of.flatten()
    for number, one in enumerate(examples):
        at = torch.nonzero(again == number).flatten()
        assert torch.equal(batch.input_ids.flatten()[at], torch.from_numpy(one.ids).long())
        assert batch.offset_of.flatten()[at].tolist() == list(range(len(one.ids)))
    assert torch.equal(batch.input_ids.flatten()[batch.positions + 1], batch.targets)
    plain = collate(examples, CPU)
    assert (batch.tokens, batch.squared_tokens, batch.examples) == (plain.tokens, plain.squared_tokens, len(LENGTHS))
    assert np.array_equal(batch.row_of, plain.row_of)
    assert torch.equal(batch.targets, plain.targets)


def test_examples_that_do_not_fit_together_are_not_packed(examples: list[Encoded]) -> None:
    chosen = [examples[0], examples[4], examples[7]]
    packed, plain = collate(chosen, CPU, 50), collate(chosen, CPU)
    assert not packed.packed
    assert torch.equal(packed.input_ids, plain.input_ids)
    assert torch.equal(packed.positions, plain.positions)


@torch.no_grad()
def test_losses_are_those_of_each_example_alone(base: BaseModel, examples: list[Encoded]) -> None:
    packed = example_losses(base, collate(examples, CPU, 50))
    padded = example_losses(base, collate(examples, CPU))
    for one, together, apart in zip(examples, packed, padded, strict=True):
        alone = base.nll(collate([one], CPU))
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
        assert together.mean().item() == pytest.approx(alone.mean().item(), abs=1e-6)
        assert together.mean().item() == pytest.approx(apart.mean().item(), abs=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("changed", range(len(LENGTHS)))
def test_a_neighbour_changes_nothing(base: BaseModel, examples: list[Encoded], changed: int) -> None:
    before = example_losses(base, collate(examples, CPU, 50))
    examples[changed] = example(LENGTHS[changed], 99)
    after = example_losses(base, collate(examples, CPU, 50))
    for number in range(len(LENGTHS)):
        assert torch.equal(before[number], after[number]) == (number != changed)


def test_steps_are_equal_to_rounding(engine: ResidentEngine, make_spec: MakeSpec) -> None:
    settings = {"effective_batch": 8, "micro_batch": 8, "max_length": 100, "lora_dropout": 0.1}
    losses, weights = [], []
    for packing in (False, True):
        trial = engine.admit(make_spec(packing=packing, **settings), None)
        assert trial.data.train.batch(np.arange(8), CPU).packed == packing
        losses.append([step.loss for step in engine.advance(trial, 64)])
        weights.append(torch.cat([weight.detach().flatten() for weight in trial.adapter.parameters]))
    torch.testing.assert_close(losses[1], losses[0], atol=1e-5, rtol=0)
    assert (weights[0] - weights[1]).norm() / weights[0].norm() < 1e-3


def test_gradients_are_equal_to_rounding(base_folder: Path, examples: list[Encoded]) -> None:
    base = BaseModel(ModelSpec(path=str(base_folder)), CPU)
    weight = base.model.get_parameter("model.layers.0.self_attn.q_proj.weight").requires_grad_()
    gradients = []
    for pack_tokens in (None, 50):
        (gradient,) = torch.autograd.grad(base.nll(collate(examples, CPU, pack_tokens)).mean(), weight)
        gradients.append(gradient)
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-6, rtol=1e-4)


SMALL: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 320}


@torch.no_grad()
@pytest.mark.parametrize(
    "model",
    [
        lambda: Qwen2ForCausalLM(Qwen2Config(**SMALL, intermediate_size=64, num_key_value_heads=2)),
        lambda: MistralForCausalLM(
            MistralConfig(**SMALL, intermediate_size=64, num_key_value_heads=2, sliding_window=6)
        ),
        lambda: GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=320)),
    ],
)
def test_other_architectures(
    base_folder: Path, tmp_path: Path, examples: list[Encoded], model: Callable[[], torch.nn.Module]
) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((base_folder / name).read_bytes())
    torch.manual_seed(1)
    model().save_pretrained(tmp_path)  # type: ignore[operator]
    base = BaseModel(ModelSpec(path=str(tmp_path)), CPU)
    base.check_packing()
    packed = example_losses(base, collate(examples, CPU, 50))
    for one, together in zip(examples, packed, strict=True):
        torch.testing.assert_close(together, base.nll(collate([one], CPU)), atol=1e-5, rtol=0)


def test_a_model_in_which_examples_would_see_each_other_refuses(
    base_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = BaseModel(ModelSpec(path=str(base_folder)), CPU)
    monkeypatch.setattr(base, "_packed_inputs", lambda ids, offsets: {"input_ids": ids})
    for _ in range(2):
        with pytest.raises(UserError, match="packed examples would see each other; set packing to false"):
            base.check_packing()
