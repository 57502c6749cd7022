"""Chats through the model's own chat template, with every turn of the assistant found in the tokens."""

import re
from bisect import bisect_left
from collections.abc import Iterator
from itertools import pairwise
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from trainer.common.errors import UserError
from trainer.data.rows import Row, RowError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
_Spans = list[tuple[int, int]]


class ChatEncoder:
    """Learns every turn of the assistant with its end-of-turn token, and nothing else.

    A template with `{% generation %}` marks says itself what the assistant's turns are. Any other template is
    rendered up to each turn; what a turn adds to the text is learned. If nothing marks the end of the last turn, the
    end-of-sequence token does.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", end: int) -> None:
        """Raises UserError if the tokenizer cannot render chats or cannot say where its tokens are in the text."""
        if not tokenizer.chat_template:
            raise UserError(
                f"the tokenizer of {tokenizer.name_or_path} has no chat template, which chats need: save one with the "
                "model (chat_template.jinja) or use rows of the format prompt_completion or alpaca"
            )
        if not tokenizer.is_fast:
            raise UserError(
                f"the tokenizer of {tokenizer.name_or_path} is not a fast one and cannot tell which tokens the "
                "assistant says; use rows of the format prompt_completion"
            )
        self._tokenizer = tokenizer
        self._end = end
        self._marked = _GENERATION.search(tokenizer.get_chat_template()) is not None
        added = tokenizer.added_tokens_decoder
        self._added = frozenset(added)
        self._special = frozenset(number for number, token in added.items() if token.special)
        self._special_texts = tuple(token.content for token in added.values() if token.special)

    def encode(self, rows: list[Row]) -> Iterator[tuple[list[int], _Spans]]:
        """(token ids, learned spans) of each row. Raises RowError if the template cannot render one."""
        for row in rows:
            try:
                ids, spans = self._marked_turns(row) if self._marked else self._rendered_turns(row)
            except TemplateError as error:
                reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
                raise RowError(row.file, row.line_number, f"the model's chat template refuses it: {reason}") from error
            yield self._ended(ids, spans)

    def _ended(self, ids: list[int], spans: _Spans) -> tuple[list[int], _Spans]:
        start, stop = spans[-1]
        if ids[stop - 1] in self._special:
            return ids[:stop], spans
        return [*ids[:stop], self._end], [*spans[:-1], (start, stop + 1)]

    def _marked_turns(self, row: Row) -> tuple[list[int], _Spans]:
        encoded: Any = self._tokenizer.apply_chat_template(
            _conversation(row), tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        ids, mask = encoded["input_ids"], [0, *encoded["assistant_masks"], 0]
        changes = [index for index, (before, after) in enumerate(pairwise(mask)) if before != after]
        spans = []
        for start, stop in zip(changes[::2], changes[1::2], strict=True):
            # The token that ends a turn often stands behind the mark; a model that never learns it never stops.
            open_ended = stop < len(ids) and ids[stop] in self._special and ids[stop - 1] not in self._special
            spans.append((start, stop + open_ended))
        if not spans:
            raise RowError(
                row.file, row.line_number, "the {% generation %} marks of the chat template are empty for it"
            )
        return ids, spans

    def _rendered_turns(self, row: Row) -> tuple[list[int], _Spans]:
        conversation = _conversation(row)
        text, borders = "", []
        for number, message in enumerate(row.messages):
            if message.role != "assistant":
                continue
            prompt = self._render(conversation[:number], row, text, add_generation_prompt=True)
            text = self._render(conversation[: number + 1], row, prompt, add_generation_prompt=False)
            borders.append((len(prompt), len(prompt) + self._turn_length(text[len(prompt) :])))
        return self._tokenize(text[: borders[-1][1]], borders)

    def _render(self, conversation: list[dict[str, str]], row: Row, before: str, add_generation_prompt: bool) -> str:
        rendered: Any = self._tokenizer.apply_chat_template(
            conversation, tokenize=False, add_generation_prompt=add_generation_prompt
        )
        if not rendered.startswith(before):
            raise RowError(
                row.file,
                row.line_number,
                "the model's chat template renders earlier turns differently once the chat goes on, so what the "
                "assistant says cannot be found: mark it with {% generation %} in the template or use single turns",
            )
        return str(rendered)

    def _turn_length(self, turn: str) -> int:
        """Characters of a turn up to its end-of-turn token: a newline after it is never generated."""
        bare = turn.rstrip()
        return len(bare) if bare.endswith(self._special_texts) else len(turn)

    def _tokenize(self, text: str, borders: _Spans) -> tuple[list[int], _Spans]:
        """Ids of `text`, and where the stretches between `borders` (in characters) are in them.

        What comes before a turn has the tokens it has when the model is asked. Where a token would reach over the
        border, the rest of the text is tokenized by itself.
        """
        ids: list[int] = []
        spans: _Spans = []
        first, cut = 0, 0
        tokens, offsets = self._tokens(text)
        for start, stop in borders:
            prompt = self._tokens_before(text[cut:], tokens, offsets, start - cut)
            if prompt != tokens[: len(prompt)]:
                ids += prompt
                first, cut = len(ids), start
                tokens, offsets = self._tokens(text[cut:])
                prompt = []
            inside = len(prompt)
            spans.append((first + inside, first + bisect_left(offsets, stop - cut, lo=inside, key=itemgetter(0))))
        return ids + tokens, spans

    def _tokens_before(self, text: str, tokens: list[int], offsets: _Spans, border: int) -> list[int]:
        """Tokens of `text[:border]` by itself. Added tokens split a text, so only what follows the last one counts."""
        known = bisect_left(offsets, border, key=itemgetter(0)) - 1
        while known > 0 and (tokens[known] not in self._added or offsets[known][1] > border):
            known -= 1
        known = max(known, 0)
        begin = offsets[known][0] if known else 0
        return tokens[:known] + self._tokens(text[begin:border])[0]

    def _tokens(self, text: str) -> tuple[list[int], _Spans]:
        encoded: Any = self._tokenizer(
            text, add_special_tokens=False, return_attention_mask=False, return_offsets_mapping=True, verbose=False
        )
        return encoded["input_ids"], encoded["offset_mapping"]


def _conversation(row: Row) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in row.messages]
