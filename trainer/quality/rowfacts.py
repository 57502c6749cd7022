"""What a chunk of rows says about itself: every check that looks at one row at a time."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple, cast

import numpy as np
from ftfy.badness import is_bad
from numpy.typing import NDArray

from trainer.data.row_encoding import Encoded, Encoder, EncoderSettings, Learn
from trainer.data.rows import Row, RowError
from trainer.quality.ngrams import Hashes, Integers, Texts, longest_byte_run, repeated_share
from trainer.quality.patterns import (
    PERSONAL_DATA,
    SECRETS,
    has_boilerplate,
    has_control_characters,
    is_refusal,
    kinds_of,
)
from trainer.quality.shared_text import slots_of
from trainer.quality.tokens import chat_tokenizer, plain_tokenizer

#: checks of single rows; bit i of a row's flags is set where check i found something
ROW_CHECKS = (
    "empty_responses",
    "tiny_responses",
    "truncated_rows",
    "truncated_responses",
    "mojibake",
    "control_characters",
    "refusals",
    "boilerplate",
    "repetition",
    "secrets",
    "personal_data",
)
_BIT = {check: 1 << number for number, check in enumerate(ROW_CHECKS)}

TINY_CHARACTERS = 3
_REPEATED_WORDS, _REPEATED_SHARE, _REPEATED_FROM_WORDS = 4, 0.5, 24
_LONG_RUN_CHARACTERS = 60
_WITHOUT_CUT = 1 << 40
#: without a tokenizer, words stand for tokens: hashes of so many bits
_WORD_BITS = 16


@dataclass(frozen=True)
class ChunkTask:
    """Rows to look at. Without `tokenizer_path`, words stand for tokens and nothing is said about truncation."""

    rows: tuple[Row, ...]
    tokenizer_path: str | None
    learn: Learn
    max_length: int


@dataclass(frozen=True)
class ChunkFacts:
    """Arrays over the rows of a chunk, in order.

    `flags`: see ROW_CHECKS. `tokens` counts whole rows before any cut (0 without a tokenizer), `learned_ids` are the
    learned tokens that are left after the cut, one row after another, `learned` of them in each row. `text` is what
    is compared between rows: without system messages, lower case, single spaces. `shared_slots` are the slots of
    `shared_text` that occur, with the number of rows in which they do. `problems` are rows that the model's chat
    template refuses.
    """

    flags: NDArray[np.uint32]
    prompt_hashes: Hashes
    row_hashes: Hashes
    has_prompt: NDArray[np.bool_]
    tokens: NDArray[np.int32]
    learned: NDArray[np.int32]
    learned_ids: NDArray[np.int32]
    text: bytes
    text_lengths: NDArray[np.int32]
    shared_slots: tuple[Integers, Integers]
    kinds: Counter[str]
    problems: tuple[tuple[int, str], ...]


class _Normal(NamedTuple):
    """A row's texts, in lower case with single spaces; `asked` leaves system messages out."""

    system: str
    asked: str
    response: str


def flagged(flags: NDArray[np.uint32], check: str) -> NDArray[np.bool_]:
    """[rows] where a check of single rows found something."""
    return cast(NDArray[np.bool_], (flags & np.uint32(_BIT[check])) != 0)


def chunk_facts(task: ChunkTask) -> ChunkFacts:
    """All facts about the rows of a task. Raises UserError if the model's tokenizer does not fit the data."""
    normal = [_normal(row) for row in task.rows]
    responses = Texts.of([texts.response.encode() for texts in normal])
    words = responses.words()
    flags = np.array([_text_flags(row, texts) for row, texts in zip(task.rows, normal, strict=True)], dtype=np.uint32)
    repetitive = (repeated_share(words, _REPEATED_WORDS) > _REPEATED_SHARE) & (words.lengths >= _REPEATED_FROM_WORDS)
    repetitive |= longest_byte_run(responses) >= _LONG_RUN_CHARACTERS
    flags[repetitive] |= _BIT["repetition"]
    kinds: Counter[str] = Counter()
    problems: list[tuple[int, str]] = []
    for number, row in enumerate(task.rows):
        flags[number] |= _private_flags(row, kinds)
    if task.tokenizer_path is None:
        ids = (words.values & np.uint64((1 << _WORD_BITS) - 1)).astype(np.int32)
        tokens, learned = np.zeros(len(normal), np.int32), words.lengths.astype(np.int32)
    else:
        tokens, learned, ids, first, problems = _tokenized(task)
        flags[tokens > task.max_length] |= _BIT["truncated_rows"]
        flags[first >= task.max_length] |= _BIT["truncated_responses"]
    compared = [f"{texts.asked} {texts.response}".strip().encode() for texts in normal]
    return ChunkFacts(
        flags=flags,
        prompt_hashes=_hashes(f"{texts.system}\0{texts.asked}" for texts in normal),
        row_hashes=_hashes("\0".join(texts) for texts in normal),
        has_prompt=np.array([bool(texts.asked) for texts in normal]),
        tokens=tokens,
        learned=learned,
        learned_ids=ids,
        text=b"".join(compared),
        text_lengths=np.array([len(text) for text in compared], dtype=np.int32),
        shared_slots=slots_of(Texts.of(compared)),
        kinds=kinds,
        problems=tuple(problems),
    )


def _normal(row: Row) -> _Normal:
    return _Normal(*(_plain(row, roles) for roles in (("system",), ("user", "tool"), ("assistant",))))


def _plain(row: Row, roles: Sequence[str]) -> str:
    return " ".join(" ".join(m.content for m in row.messages if m.role in roles).lower().split())


def _text_flags(row: Row, texts: _Normal) -> int:
    """What the texts of one row show."""
    contents = [message.content for message in row.messages]
    visible = len(texts.response) - texts.response.count(" ")
    found = {
        "empty_responses": visible == 0,
        "tiny_responses": 0 < visible < TINY_CHARACTERS,
        "mojibake": any(not text.isascii() and is_bad(text) for text in contents),
        "control_characters": any(map(has_control_characters, contents)),
        "refusals": is_refusal(texts.response),
        "boilerplate": has_boilerplate(texts.asked) or has_boilerplate(texts.response),
    }
    return sum(_BIT[check] for check, seen in found.items() if seen)


def _private_flags(row: Row, kinds: Counter[str]) -> int:
    """What must not be in a row; counts the rows of each kind in `kinds`."""
    flags = 0
    text = "\n".join([message.content for message in row.messages])
    for check, patterns in (("secrets", SECRETS), ("personal_data", PERSONAL_DATA)):
        found = kinds_of(text, patterns)
        kinds.update(f"{check}/{kind}" for kind in found)
        flags |= _BIT[check] if found else 0
    return flags


def _hashes(texts: Iterator[str]) -> Hashes:
    digests = b"".join(blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(digests, dtype=np.uint64)


def _tokenized(
    task: ChunkTask,
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], Integers, list[tuple[int, str]]]:
    """(tokens, learned tokens after the cut, their ids, first learned token, problems) of the rows."""
    assert task.tokenizer_path is not None
    encoder = _encoder(task.tokenizer_path, task.learn, any(row.is_chat for row in task.rows))
    size = len(task.rows)
    tokens, learned, first = np.zeros(size, np.int32), np.zeros(size, np.int32), np.zeros(size, np.int64)
    pieces: list[NDArray[np.int32]] = []
    problems: list[tuple[int, str]] = []
    for number, encoded in enumerate(_encoded(task.rows, encoder)):
        if isinstance(encoded, RowError):
            problems.append((number, encoded.problem))
            continue
        bounds = encoded.spans.reshape(-1, 2)
        tokens[number] = len(encoded.ids)
        first[number] = bounds[0, 0] if len(bounds) else _WITHOUT_CUT
        kept = [encoded.ids[start : min(stop, task.max_length)] for start, stop in bounds if start < task.max_length]
        learned[number] = sum(map(len, kept))
        pieces += kept
    return tokens, learned, np.concatenate([np.zeros(0, np.int32), *pieces]), first, problems


def _encoded(rows: Sequence[Row], encoder: Encoder) -> Iterator[Encoded | RowError]:
    done = 0
    while done < len(rows):
        try:
            for encoded in encoder.encode(iter(rows[done:])):
                done += 1
                yield encoded
        except RowError as error:
            done += 1
            yield error


@lru_cache(maxsize=1)
def _encoder(path: str, learn: Learn, chats: bool) -> Encoder:
    tokenizer = chat_tokenizer(path) if chats else plain_tokenizer(path)
    return Encoder(tokenizer, EncoderSettings(learn, _WITHOUT_CUT))
