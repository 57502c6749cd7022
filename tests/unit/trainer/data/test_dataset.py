"""Split, order and labels of a trial's data."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from trainer.common.errors import DataError
from trainer.data.batches import collate
from trainer.data.dataset import DataCache, DataOrder
from trainer.data.row_encoding import Encoded, Encoder, EncoderSettings
from trainer.data.rows import read_rows
from trainer.data.token_cache import TokenCache
from trainer.spec import TrialSpec

MakeSpec = Callable[..., TrialSpec]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tokenizer(base_folder: Path) -> PreTrainedTokenizerBase:
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(base_folder)
    return loaded


@pytest.fixture
def cache(tokenizer: PreTrainedTokenizerBase, token_cache: TokenCache) -> DataCache:
    return DataCache(tokenizer, token_cache)


def encode(path: Path, tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[Encoded]:
    return list(Encoder(tokenizer, EncoderSettings("response", max_length)).encode(read_rows(path)))


def test_only_response_and_end_are_learned(tokenizer: PreTrainedTokenizerBase, row_files: tuple[Path, Path]) -> None:
    encoded = encode(row_files[0], tokenizer, 128)
    rows = list(read_rows(row_files[0]))
    chosen = [0, 5, 9]
    batch = collate([encoded[index] for index in chosen], CPU)
    for number, index in enumerate(chosen):
        learned = batch.targets[torch.from_numpy(batch.row_of) == number].tolist()
        assert learned[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(learned[:-1]) == rows[index].response()
        seen = batch.input_ids[number].tolist()[: len(encoded[index].ids)]
        assert tokenizer.decode(seen[:-1]) == rows[index].prompt() + rows[index].response()


def test_a_target_follows_its_position(tokenizer: PreTrainedTokenizerBase, row_files: tuple[Path, Path]) -> None:
    encoded = encode(row_files[0], tokenizer, 128)
    batch = collate([encoded[3], encoded[1]], CPU)
    flat = batch.input_ids.flatten()
    assert torch.equal(flat[batch.positions + 1], batch.targets)
    assert batch.input_ids.shape == (2, max(len(encoded[3].ids), len(encoded[1].ids)))
    assert batch.tokens == len(encoded[3].ids) + len(encoded[1].ids) == int((batch.example_of >= 0).sum())
    assert batch.offset_of[0, : len(encoded[3].ids)].tolist() == list(range(len(encoded[3].ids)))


def test_an_end_token_inside_padding_is_not_confused(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Padding is zeros, which is also the id of `<s>`: labels go by position, never by token."""
    path = tmp_path / "rows.jsonl"
    path.write_text(
        json.dumps({"instruction": "a", "output": "<s> <s>"}) + "\n" + json.dumps({"instruction": "a", "output": ""})
    )
    batch = collate(encode(path, tokenizer, 64), CPU)
    assert batch.targets[batch.row_of == 0].tolist().count(0) == 2
    assert batch.targets[batch.row_of == 1].tolist() == [tokenizer.eos_token_id]


def test_the_prompt_alone_has_the_tokens_it_is_trained_with(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"instruction": "a", "output": out}) + "\n" for out in ("\n\nx", " y", "z")))
    prompt = tokenizer(next(iter(read_rows(path))).prompt())["input_ids"]
    for row in encode(path, tokenizer, 64):
        assert row.ids[: row.spans[0]].tolist() == prompt
        assert row.spans.tolist() == [len(prompt), len(row.ids)]


def test_rows_without_a_response_left_are_dropped_and_counted(
    cache: DataCache, tmp_path: Path, make_spec: MakeSpec
) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"instruction": "a", "output": "b"}] * 4 + [{"instruction": "tree " * 50, "output": "b"}] * 2
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = cache.load(make_spec(train=str(path)).data, 60)
    assert (len(data.train), data.dropped_train, data.train_rows) == (4, 2, 6)
    with pytest.raises(DataError, match="nothing is left to train on"):
        cache.load(make_spec(train=str(path)).data, 8)
    everything = cache.load(make_spec(train=str(path), learn="all").data, 8)
    assert (len(everything.train), everything.dropped_train) == (6, 0)
    assert everything.train.batch([0, 1], CPU).response_tokens == 14
    told = data.left_out()
    assert told is not None
    assert told.values == {"train_rows": 2, "eval_rows": 0}
    assert told.message.startswith("2 of 6 training rows and 0 of ")
    assert everything.left_out() is None


def test_a_split_holds_out_other_rows(
    tokenizer: PreTrainedTokenizerBase, token_cache: TokenCache, make_spec: MakeSpec
) -> None:
    spec = make_spec(eval=None, eval_fraction=0.25)
    first, second = (DataCache(tokenizer, token_cache).load(spec.data, 128) for _ in range(2))
    assert (len(first.train), len(first.evaluation)) == (28, 9)
    assert sorted([*first.train.rows, *first.evaluation.rows]) == list(range(37))
    assert np.array_equal(first.train.rows, second.train.rows)
    other = DataCache(tokenizer, token_cache).load(make_spec(eval=None, eval_fraction=0.25, split_seed=1).data, 128)
    assert not np.array_equal(first.train.rows, other.train.rows)


def test_a_file_is_opened_once_until_it_changes(cache: DataCache, tmp_path: Path, make_spec: MakeSpec) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"instruction": "a", "output": "b"}\n' * 3)
    first = cache.load(make_spec(train=str(path)).data, 64)
    again = cache.load(make_spec(train=str(path)).data, 64)
    assert again.train.source is first.train.source
    path.write_text('{"instruction": "a", "output": "b"}\n' * 4)
    assert len(cache.load(make_spec(train=str(path)).data, 64).train) == 4


def test_order_is_a_function_of_seed_and_position() -> None:
    order = DataOrder(seed=3, examples=10)
    whole = order.indices(0, 35)
    assert sorted(whole[:10]) == sorted(whole[10:20]) == list(range(10))
    assert not np.array_equal(whole[:10], whole[10:20])
    assert np.array_equal(np.concatenate([order.indices(i, i + 5) for i in range(0, 35, 5)]), whole)
    assert np.array_equal(order.indices(8, 23), whole[8:23])
    assert not np.array_equal(DataOrder(seed=4, examples=10).indices(0, 10), whole[:10])
