"""Reads WordNet's `dict` folder, and says on which side of the split each synset lies."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Side = Literal["eval", "train", "pretrain"]

PARTS_OF_SPEECH = {"noun": "noun", "verb": "verb", "adj": "adjective", "adv": "adverb"}
EVAL_PERCENT = 4
TRAIN_PERCENT = 48
_QUOTED = re.compile(r'"([^"]+)"')
_UNFIT = re.compile(r"\b(slur|offensive|obscene|disparag\w+|derogatory|vulgar)\b")
_MARKER = re.compile(r"\((?:p|a|ip)\)$")


@dataclass(frozen=True, slots=True)
class Synset:
    """One meaning: the words that share it, its definition, its examples, its broader terms."""

    key: str
    part_of_speech: str
    words: tuple[str, ...]
    definition: str
    examples: tuple[str, ...]
    hypernyms: tuple[str, ...]

    @property
    def side(self) -> Side:
        """Eval and train rows and the base model's pretraining text never share a synset."""
        percent = int.from_bytes(hashlib.sha256(self.key.encode()).digest()[:4]) % 100
        if percent < EVAL_PERCENT:
            return "eval"
        return "train" if percent < EVAL_PERCENT + TRAIN_PERCENT else "pretrain"


def parse_synset(line: str, part_of_speech: str) -> Synset:
    """Parse one line of `data.*` (format: the manual page wndb(5WN))."""
    head, gloss = line.rstrip().split(" | ", 1)
    fields = head.split()
    offset, kind, word_count = fields[0], fields[2], int(fields[3], 16)
    words = fields[4 : 4 + 2 * word_count : 2]
    pointers = fields[5 + 2 * word_count :]
    pointer_count = int(fields[4 + 2 * word_count])
    hypernyms = [
        pointers[4 * i + 2] + pointers[4 * i + 1] for i in range(pointer_count) if pointers[4 * i] in ("@", "@i")
    ]
    return Synset(
        key=("a" if kind == "s" else kind) + offset,
        part_of_speech=part_of_speech,
        words=tuple(_MARKER.sub("", word).replace("_", " ") for word in words),
        definition=gloss.split('"', 1)[0].strip(" ;:"),
        examples=tuple(text.strip(" ;") for text in _QUOTED.findall(gloss)),
        hypernyms=tuple(hypernyms),
    )


def read_synsets(folder: Path) -> Iterator[Synset]:
    """Yield the synsets of the `data.*` files in their order, without insults and obscenities."""
    for suffix, part_of_speech in PARTS_OF_SPEECH.items():
        with (folder / f"data.{suffix}").open(encoding="utf-8") as lines:
            for line in lines:
                if not line.startswith("  ") and not _UNFIT.search(line):
                    yield parse_synset(line, part_of_speech)
