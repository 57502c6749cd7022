"""Masks and noise are functions of what they are for, and look random in every direction."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from trainer.common.errors import UserError
from trainer.common.random_keys import stream_key
from trainer.data.batches import Batch
from trainer.model.keyed_dropout import KeyedDropout, NoiseClock
from trainer.model.keyed_random import TokenKeys, keyed_bits, token_keys
from trainer.model.neftune import NeftuneNoise, neftune_noise
from trainer.spec import TrialSpec
from trainer.training.engines.resident import ResidentEngine

MASK = 2**64 - 1
CPU = torch.device("cpu")


def batch_of(rows: list[list[tuple[int, int]]]) -> Batch:
    """A batch with these (example, offset) pairs; (-1, 0) is padding."""
    pairs = torch.tensor(rows)
    examples = int(pairs[..., 0].max()) + 1
    empty = torch.zeros(0, dtype=torch.int64)
    fields: dict[str, Any] = dict.fromkeys(Batch.__dataclass_fields__, empty)
    fields |= {"input_ids": torch.zeros(pairs.shape[:2]), "example_of": pairs[..., 0], "offset_of": pairs[..., 1]}
    return Batch(**(fields | {"examples": examples}))


def example_rows(lengths: list[int]) -> list[list[tuple[int, int]]]:
    """Padded rows of one example each."""
    width = max(lengths)
    return [
        [(row, offset) if offset < length else (-1, 0) for offset in range(width)] for row, length in enumerate(lengths)
    ]


def long_batch(examples: int, length: int) -> Batch:
    return batch_of(example_rows([length] * examples))


def finalize(word: int) -> int:
    """splitmix64's finalizer in exact integers."""
    word = ((word ^ word >> 30) * 0xBF58476D1CE4E5B9) & MASK
    word = ((word ^ word >> 27) * 0x94D049BB133111EB) & MASK
    return word ^ word >> 31


def bits_in_plain_python(seed: int, position: int, offset: int, stream: int, column: int) -> int:
    def signed(word: int) -> int:
        return word - 2**64 if word >> 63 else word

    golden = 0x9E3779B97F4A7C15
    token = finalize((finalize((position * golden + stream_key("noise", seed)) & MASK) + offset * golden) & MASK)
    word = token ^ stream ^ finalize((column // 4 + 1) * golden & MASK)
    for factor in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB):
        word = (word ^ (signed(word) >> 32)) * factor & MASK
    lane = word >> 16 * (column % 4) & 0xFFFF
    return lane - 2**16 if lane >> 15 else lane


def test_the_bits_are_what_their_definition_says() -> None:
    """So every device and version gives the same ones."""
    stream = stream_key("dropout", "model.layers.0.mlp")
    keys = token_keys(3, 1000, batch_of(example_rows([2, 3])))
    bits = keyed_bits(keys.words, stream, 11)
    for row, offset, column in ((0, 0, 0), (0, 1, 1), (1, 0, 6), (1, 2, 7), (1, 1, 10)):
        assert int(bits[row, offset, column]) == bits_in_plain_python(3, 1000 + row, offset, stream, column)


def test_batching_padding_and_packing_are_invisible() -> None:
    lengths = [5, 9, 2, 7]
    whole = token_keys(1, 40, batch_of(example_rows(lengths)))
    packed = token_keys(1, 40, batch_of([[(e, o) for e, length in enumerate(lengths) for o in range(length)]]))
    noise = {"whole": neftune_noise(whole, torch.zeros(4, 9, 10), 5.0)}
    noise["packed"] = neftune_noise(packed, torch.zeros(1, 23, 10), 5.0)
    start = 0
    for row, length in enumerate(lengths):
        alone = token_keys(1, 40 + row, batch_of(example_rows([length])))
        expected = keyed_bits(alone.words, 7, 10)[0]
        assert torch.equal(keyed_bits(whole.words, 7, 10)[row, :length], expected)
        assert torch.equal(keyed_bits(packed.words, 7, 10)[0, start : start + length], expected)
        perturbed = neftune_noise(alone, torch.zeros(1, length, 10), 5.0)[0]
        assert torch.equal(noise["whole"][row, :length], perturbed)
        assert torch.equal(noise["packed"][0, start : start + length], perturbed)
        start += length


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 0.9])
def test_as_many_are_kept_as_asked_for(p: float) -> None:
    clock = NoiseClock(token_keys(0, 0, long_batch(64, 64)))
    x = torch.ones(64, 64, 251)
    kept = KeyedDropout(p, "m", clock)(x)
    share = (kept > 0).double().mean().item()
    assert abs(share - (1 - p)) < 5 * math.sqrt(p * (1 - p) / x.numel()) + 2**-16
    assert kept.max().item() == pytest.approx(1 / (1 - p))
    assert set(kept.unique().tolist()) == {0.0, kept.max().item()}


@pytest.mark.parametrize("p", [1e-9, 7e-6])
def test_a_probability_below_the_resolution_drops_nothing(p: float) -> None:
    """Masks are drawn from 16 bits."""
    x = torch.randn(4, 16, 251)
    assert torch.equal(KeyedDropout(p, "m", NoiseClock(token_keys(0, 0, long_batch(4, 16))))(x), x)


def test_the_smallest_probability_that_drops_anything_keeps_nearly_all() -> None:
    x = torch.ones(16, 16, 64)
    kept = KeyedDropout(8e-6, "m", NoiseClock(token_keys(0, 0, long_batch(16, 16))))(x)
    assert (kept > 0).double().mean() > 0.99


def test_every_lane_is_uniform() -> None:
    keys = token_keys(5, 0, long_batch(64, 64))
    bits = keyed_bits(keys.words, 9, 256).numpy().reshape(-1, 64, 4)
    for lane in range(4):
        for shift in (0, 8):
            counts = np.bincount(((bits[..., lane] >> shift) & 255).ravel(), minlength=256)
            chi_squared = ((counts - counts.mean()) ** 2 / counts.mean()).sum()
            assert abs(chi_squared - 255) < 5 * math.sqrt(2 * 255)


def largest_correlation(signs: NDArray[np.float32]) -> tuple[float, float]:
    """Of all pairs of rows of `signs` [n, samples]: the largest |z|, and the variance of z, which should be 1."""
    z = (signs @ signs.T) / math.sqrt(signs.shape[1])
    pairs = z[np.triu_indices(len(z), k=1)]
    return float(np.abs(pairs).max()), float(pairs.var())


def mask_signs(words: torch.Tensor, stream: int, columns: int) -> NDArray[np.float32]:
    return np.where(keyed_bits(words, stream, columns).numpy() < 0, 1, -1).astype(np.float32)


def directions() -> dict[str, NDArray[np.float32]]:
    """Signs of masks, a row for each thing that must be independent of the others."""
    keys = token_keys(2, 0, long_batch(16, 64)).words
    signs = mask_signs(keys, 11, 512).reshape(1024, 512)
    modules = [mask_signs(keys[:1], stream_key("dropout", f"m{n}"), 64).ravel() for n in range(512)]
    examples = [mask_signs(token_keys(2, n, long_batch(1, 64)).words, 11, 64).ravel() for n in range(512)]
    seeds = [mask_signs(token_keys(n, 0, long_batch(1, 64)).words, 11, 64).ravel() for n in range(512)]
    return {
        "columns": signs.T,
        "tokens": signs,
        "tokens in lane 0": signs[:, 0::4],
        "tokens in lane 3": signs[:, 3::4],
        "modules": np.stack(modules),
        "examples": np.stack(examples),
        "seeds": np.stack(seeds),
    }


@pytest.mark.parametrize(
    "direction", ["columns", "tokens", "tokens in lane 0", "tokens in lane 3", "modules", "examples", "seeds"]
)
def test_masks_are_independent(direction: str) -> None:
    """Among 130,816 to 523,776 pairs the largest |z| of pure chance is about 4.5 to 5."""
    largest, variance = largest_correlation(directions()[direction])
    assert largest < 6
    assert abs(variance - 1) < 0.02


def test_nothing_is_dropped_outside_training() -> None:
    x = torch.randn(2, 3, 8)
    assert KeyedDropout(0.5, "m", NoiseClock())(x) is x
    assert KeyedDropout(0.0, "m", NoiseClock(token_keys(0, 0, long_batch(2, 3))))(x) is x


def test_the_gradient_is_dropped_like_the_value() -> None:
    x = torch.ones(4, 16, 32, requires_grad=True)
    dropped = KeyedDropout(0.3, "m", NoiseClock(token_keys(0, 8, long_batch(4, 16))))(x)
    dropped.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, dropped.detach())


def test_flat_rows_are_dropped_alike_and_others_are_refused() -> None:
    dropout = KeyedDropout(0.3, "experts.3", NoiseClock(token_keys(0, 8, long_batch(4, 16))))
    assert torch.equal(dropout(torch.ones(64, 8)), dropout(torch.ones(4, 16, 8)).flatten(0, 1))
    with pytest.raises(UserError, match=r"module experts.3 does not see every token once; set lora_dropout to 0"):
        dropout(torch.ones(10, 8))


def test_embedding_noise_is_bounded_by_the_examples_own_length() -> None:
    keys: TokenKeys = token_keys(0, 0, batch_of(example_rows([4, 400])))
    noise = neftune_noise(keys, torch.zeros(2, 400, 64), 5.0)
    for row, length in enumerate((4, 400)):
        bound = 5.0 / math.sqrt(length * 64)
        values = noise[row, :length]
        assert values.abs().max() <= bound
        assert values.abs().max() > 0.97 * bound
        spread = bound / math.sqrt(3 * values.numel())
        assert abs(values.mean().item()) < 5 * spread
        assert values.var().item() == pytest.approx(bound**2 / 3, rel=0.15)


def test_embedding_noise_comes_and_goes_with_its_trial() -> None:
    torch.manual_seed(0)
    embedding, clock = torch.nn.Embedding(10, 8), NoiseClock()
    noise = NeftuneNoise(5.0, embedding, clock)
    ids = torch.arange(6).reshape(2, 3)
    plain = embedding(ids)
    noise.attach()
    assert torch.equal(embedding(ids), plain)
    clock.tokens = token_keys(0, 0, long_batch(2, 3))
    assert torch.equal(embedding(ids), plain + neftune_noise(clock.tokens, plain, 5.0))
    noise.detach()
    assert torch.equal(embedding(ids), plain)


@pytest.mark.parametrize("options", [{"lora_dropout": 0.2}, {"lora_dropout": 0.2, "neftune_noise_alpha": 5.0}])
def test_losses_do_not_depend_on_the_micro_batch(
    options: dict[str, float],
    engine: ResidentEngine,
    make_spec: Callable[..., TrialSpec],
    train: Callable[..., list[float]],
) -> None:
    """The whole run, at the same effective batch of 8."""
    losses = [train(engine, engine.admit(make_spec(micro_batch=size, **options), None)) for size in (1, 2, 4, 8)]
    difference = max(abs(a - b) for other in losses[1:] for a, b in zip(losses[0], other, strict=True))
    assert difference <= 1e-5
