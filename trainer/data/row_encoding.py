"""From rows to token ids and the spans of them that are learned."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.common.errors import UserError
from trainer.data.chat_template import ChatEncoder
from trainer.data.rows import Row, RowError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: version of how rows become tokens; part of the fingerprint of tokenized data
ENCODING = "tokens-1"
_ROWS_AT_ONCE = 1000
_CHARACTERS_AT_ONCE = 4_000_000

Learn = Literal["response", "all"]


class Encoded(NamedTuple):
    """`ids` [tokens] int32; `spans` [2 * n] int32: start and stop of each learned stretch, in order and disjoint."""

    ids: NDArray[np.int32]
    spans: NDArray[np.int32]


@dataclass(frozen=True)
class EncoderSettings:
    """What decides the tokens of a row beside the tokenizer: what is learned, and the cut in tokens."""

    learn: Learn
    max_length: int


class Encoder:
    """Tokenizes rows, cut at `max_length` tokens.

    Rows that are no chats become prompt + response + end-of-sequence; chats are what the model's chat template says.
    The first token of a row is never learned: nothing predicts it.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", settings: EncoderSettings) -> None:
        """Raises UserError if the tokenizer has no end-of-sequence token, so that a model could never stop."""
        end = tokenizer.eos_token_id
        if not isinstance(end, int):
            raise UserError("the model's tokenizer has no end-of-sequence token, which training needs")
        self._tokenizer = tokenizer
        self._end = end
        self._settings = settings
        self._chat: ChatEncoder | None = None

    def encode(self, rows: Iterator[Row | RowError]) -> Iterator[Encoded]:
        """Tokenize row after row. Raises the first RowError that comes, after the rows before it; UserError."""
        for chunk, problem in _chunks(rows):
            whole = self._settings.learn == "all"
            for ids, spans in self._chats(chunk) if chunk and chunk[0].is_chat else self._plain(chunk):
                yield _cut(ids, [(1, len(ids))] if whole else spans, self._settings.max_length)
            if problem is not None:
                raise problem

    def _chats(self, rows: list[Row]) -> Iterator[tuple[list[int], list[tuple[int, int]]]]:
        if self._chat is None:
            self._chat = ChatEncoder(self._tokenizer, self._end)
        return self._chat.encode(rows)

    def _plain(self, rows: list[Row]) -> Iterator[tuple[list[int], list[tuple[int, int]]]]:
        """Such that the prompt alone tokenizes to exactly the prompt's ids.

        The response's ids are what follows the prompt in the whole text, as a model sees it when it continues a
        prompt. Where a token would reach over the border, the response is tokenized by itself.
        """
        prompts = [row.prompt() for row in rows]
        responses = [row.response() for row in rows]
        wholes = [prompt + response for prompt, response in zip(prompts, responses, strict=True)]
        every = zip(self._ids(prompts), self._ids(wholes), responses, strict=True)
        for prompt_ids, whole_ids, response in every:
            ids = whole_ids
            if whole_ids[: len(prompt_ids)] != prompt_ids:
                ids = prompt_ids + self._tokenizer(response, add_special_tokens=False)["input_ids"]
            ids.append(self._end)
            yield ids, [(len(prompt_ids), len(ids))]

    def _ids(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        encoded: Any = self._tokenizer(texts, return_attention_mask=False, verbose=False)["input_ids"]
        return [ids[:-1] if ids and ids[-1] == self._end else ids for ids in encoded]


def _cut(ids: Sequence[int], spans: Sequence[tuple[int, int]], max_length: int) -> Encoded:
    kept = np.array(ids[:max_length], dtype=np.int32)
    learned = [
        bound
        for start, stop in spans
        if max(start, 1) < min(stop, len(kept))
        for bound in (max(start, 1), min(stop, len(kept)))
    ]
    return Encoded(kept, np.array(learned, dtype=np.int32))


def _chunks(rows: Iterator[Row | RowError]) -> Iterator[tuple[list[Row], RowError | None]]:
    """Rows in groups of bounded size; a problem ends the group before it."""
    chunk: list[Row] = []
    characters = 0
    for row in rows:
        if isinstance(row, RowError):
            yield chunk, row
            chunk, characters = [], 0
            continue
        chunk.append(row)
        characters += sum(len(message.content) for message in row.messages)
        if len(chunk) >= _ROWS_AT_ONCE or characters >= _CHARACTERS_AT_ONCE:
            yield chunk, None
            chunk, characters = [], 0
    if chunk:
        yield chunk, None
