"""A tiny random Llama with a byte-level tokenizer and a few instruction rows, made once a session."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from trainer.data.token_cache import TokenCache
from trainer.data.token_options import default_cache_dir
from trainer.model.base_model import BaseModel
from trainer.spec import DataSpec, ModelSpec, Parameters, TrainingSettings, TrialSpec
from trainer.training.engines.resident import ResidentEngine, ResidentTrial

WORDS = ["a", "b", "c", "cat", "dog", "tree", "river", "stone", "light", "small", "runs", "under", "over", "of"]

MakeSpec = Callable[..., TrialSpec]
Train = Callable[..., list[float]]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator([" ".join(WORDS), "### Instruction:\n### Input:\n### Response:\n"], trainer)
    fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>"
    )
    fast.save_pretrained(folder)
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.08,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def row_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(training file of 37 rows, evaluation file of 11 rows)."""
    folder = tmp_path_factory.mktemp("rows")
    draw = random.Random(3)
    paths = (folder / "train.jsonl", folder / "eval.jsonl")
    for path, rows in zip(paths, (37, 11), strict=True):
        path.write_text("".join(json.dumps(_row(draw)) + "\n" for _ in range(rows)))
    return paths


def _row(draw: random.Random) -> dict[str, str]:
    def text(low: int, high: int) -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(low, high)))

    return {"instruction": text(2, 6), "input": text(1, 4) if draw.random() < 0.5 else "", "output": text(1, 9)}


@pytest.fixture(scope="session")
def make_spec(base_folder: Path, row_files: tuple[Path, Path]) -> MakeSpec:
    """Builds a TrialSpec; keywords are spread over model, data, parameters and training by name."""

    def make(**values: Any) -> TrialSpec:
        train, held_out = (str(path) for path in row_files)
        defaults = {"train": train, "eval": held_out, "max_length": 128, "path": str(base_folder), "dtype": "float32"}
        parameters = {"lora_r": 4, "lora_alpha": 8.0, "effective_batch": 8, "learning_rate": 5e-3, "epochs": 2.0}
        values = {**defaults, **parameters, "micro_batch": 4, **values}
        parts = [
            kind(**{key: values.pop(key) for key in list(values) if key in kind.model_fields})
            for kind in (ModelSpec, DataSpec, Parameters, TrainingSettings)
        ]
        assert not values, values
        return TrialSpec(model=parts[0], data=parts[1], parameters=parts[2], training=parts[3])

    return make


@pytest.fixture(scope="session", autouse=True)
def token_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenCache]:
    """Where everything in these tests, commands included, keeps tokens."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield TokenCache(default_cache_dir(), 1)


@pytest.fixture
def make_engine(base_folder: Path, token_cache: TokenCache) -> Callable[..., ResidentEngine]:
    def make(**model: Any) -> ResidentEngine:
        base = BaseModel(ModelSpec(**{"path": str(base_folder), **model}), torch.device("cpu"))
        return ResidentEngine(base, token_cache)

    return make


@pytest.fixture
def engine(make_engine: Callable[..., ResidentEngine]) -> ResidentEngine:
    return make_engine()


@pytest.fixture(scope="session")
def train() -> Train:
    """Advances a trial and returns the losses of its steps."""

    def advance(engine: ResidentEngine, trial: ResidentTrial, until: int = 10**9) -> list[float]:
        return [step.loss for step in engine.advance(trial, until)]

    return advance


@pytest.fixture(scope="session")
def evaluate() -> Callable[[ResidentEngine, ResidentTrial], Any]:
    """Evaluates a trial to the end."""

    def run(engine: ResidentEngine, trial: ResidentTrial) -> Any:
        batches = engine.evaluate(trial)
        while True:
            try:
                next(batches)
            except StopIteration as end:
                return end.value

    return run
