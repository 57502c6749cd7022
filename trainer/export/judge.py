"""Judging a model on the CPU: perplexity on evaluation rows, logits and text of a prompt."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from peft import PeftModel
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from trainer.common.errors import DataError, UserError
from trainer.data.row_encoding import Encoded, Encoder, EncoderSettings
from trainer.data.rows import data_files, read_rows
from trainer.export.folders import file_digest, files_digest
from trainer.spec import DataFormat
from trainer.training.evaluate import perplexity

NEW_TOKENS = 16
_LOGIT_TOKENS = 64
#: what logits are compared on: an instruction, plain text, code and other scripts
SAMPLE_TEXTS = (
    "### Instruction:\nDefine the word and name its part of speech.\n\n### Input:\nriver\n\n### Response:\n",
    "The committee met on Thursday to discuss the budget, and after two hours of debate nothing had been decided.",
    "def add(a, b):\n    return a + b\n\nprint(add(2, 3))  # 5\n",
    "naïve café, Größe, 数据, данные, 3.14159, user@example.com",
)


@dataclass(frozen=True)
class EvalRows:
    """Evaluation rows as token ids; every variant of a model is judged on exactly these."""

    rows: tuple[Encoded, ...]

    @property
    def tokens(self) -> int:
        """Number of tokens that are judged."""
        return sum(len(learned_positions(row)) for row in self.rows)

    @property
    def longest_tokens(self) -> int:
        """Length of the longest row."""
        return max(len(row.ids) for row in self.rows)

    @property
    def prompt_ids(self) -> list[int]:
        """The first row up to its response."""
        first = self.rows[0]
        return [int(token) for token in first.ids[: first.spans[0]]]

    def perplexity(self, logits_of: Callable[[Sequence[int]], NDArray[np.float32]]) -> float:
        """exp(sum of nll / judged tokens) by a function from ids [tokens] to logits [tokens, vocabulary]."""
        total = math.fsum(_nll(logits_of(row.ids.tolist()), row) for row in self.rows)
        return perplexity(total / self.tokens)


@dataclass(frozen=True)
class Judgement:
    """How good a model is on the evaluation rows, and what it greedily says after the first row's prompt."""

    perplexity: float
    generated_ids: tuple[int, ...]


def rows_digest(path: str) -> str:
    """SHA-256 of a file of rows, or over names and contents of a folder's shards. Raises DataError."""
    files = data_files(path)
    try:
        return file_digest(files[0]) if Path(path).is_file() else files_digest(Path(path), files)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def learned_positions(row: Encoded) -> NDArray[np.int64]:
    """Positions in `row.ids` whose token is judged."""
    pairs = row.spans.reshape(-1, 2)
    return np.concatenate([np.arange(start, stop, dtype=np.int64) for start, stop in pairs])


def eval_rows(
    path: str, tokenizer: PreTrainedTokenizerBase, max_length: int, max_rows: int, format: DataFormat = "auto"
) -> EvalRows:
    """The first `max_rows` usable rows of a file, tokenized as in training and judged on their responses.

    Raises:
        DataError: the file is unusable or no response is left after the cut at `max_length` tokens.
    """
    encoded = Encoder(tokenizer, EncoderSettings("response", max_length)).encode(read_rows(path, format))
    rows = tuple(islice((row for row in encoded if len(row.spans)), max_rows))
    if not rows:
        raise DataError(f"{path}: no row has a response within {max_length} tokens")
    return EvalRows(rows)


def load_float_model(folder: Path, dtype: str) -> PreTrainedModel:
    """The model in `folder` on the CPU, computing in `dtype` whatever its weights are stored in. Raises UserError."""
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            attn_implementation="sdpa",
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"model {folder} cannot be loaded: {reason}") from error
    return model.eval()  # type: ignore[no-untyped-call, no-any-return]


@torch.no_grad()
def judge(model: PreTrainedModel, rows: EvalRows) -> Judgement:
    """Perplexity and greedy text of a model on the CPU."""

    def logits_of(ids: Sequence[int]) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float().numpy()
        return logits

    return Judgement(rows.perplexity(logits_of), _generate(model, rows.prompt_ids))


@torch.no_grad()
def sample_logits(model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase) -> list[torch.Tensor]:
    """Logits [tokens, vocabulary] float32 of every sample text, cut at 64 tokens."""
    ids = [tokenizer(text)["input_ids"][:_LOGIT_TOKENS] for text in SAMPLE_TEXTS]
    return [model(input_ids=torch.tensor([row]), use_cache=False).logits[0].float() for row in ids]


def _nll(logits: NDArray[np.float32], row: Encoded) -> float:
    learned = torch.from_numpy(learned_positions(row))
    ids = torch.from_numpy(row.ids.astype(np.int64))
    nll = F.cross_entropy(torch.from_numpy(logits)[learned - 1], ids[learned], reduction="none")
    return float(nll.double().sum())


def _generate(model: PreTrainedModel, prompt_ids: list[int]) -> tuple[int, ...]:
    ids = torch.tensor([prompt_ids])
    # Sampling settings that a model folder carries would raise a warning each; a single row needs no padding.
    generate: Any = model.generate
    whole = generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        temperature=None,
        top_p=None,
        top_k=None,
        pad_token_id=0,
    )
    return tuple(whole[0, len(prompt_ids) :].tolist())
