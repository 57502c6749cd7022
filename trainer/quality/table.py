"""All rows of a file or folder: facts in arrays, text and token ids in files without a name.

In memory a row costs about 45 bytes; the files go with the process, however it ends.
"""

import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from trainer.data.rows import Row, RowError, scan_rows
from trainer.quality.ngrams import Hashes, Integers, Texts
from trainer.quality.patterns import masked
from trainer.quality.processes import Processes
from trainer.quality.rowfacts import ChunkFacts, ChunkTask, chunk_facts
from trainer.quality.shared_text import SharedText
from trainer.spec import DataSpec

#: lines that a finding names at most
MAX_LINES = 10
_ROWS_AT_ONCE, _CHARACTERS_AT_ONCE = 1000, 500_000
#: what a problem quotes of a row, if it is long enough to be something secret
_QUOTED = re.compile(r"'[^']{20,}'|`[^`]{20,}`")
_LABEL_CHARACTERS, _PROBLEM_CHARACTERS = 120, 200


@dataclass
class Problems:
    """Rows that training cannot read: how many, the first lines and what is wrong with the first."""

    rows: int = 0
    lines: list[str] = field(default_factory=list)
    first: str = ""

    def add(self, line: str, problem: str) -> None:
        """One more. What is kept of it is short and holds no secret."""
        self.rows += 1
        self.first = self.first or f"{line}: {_QUOTED.sub('...', masked(problem))[:_PROBLEM_CHARACTERS]}"
        if len(self.lines) < MAX_LINES:
            self.lines.append(line)


@dataclass(frozen=True)
class RowTable:
    """Facts about the readable rows of a file or folder, in their order; see ChunkFacts for the arrays [rows]."""

    flags: NDArray[np.uint32]
    prompt_hashes: Hashes
    row_hashes: Hashes
    has_prompt: NDArray[np.bool_]
    tokens: NDArray[np.int32]
    learned: NDArray[np.int32]
    line_numbers: Integers
    file_numbers: NDArray[np.int32]
    files: tuple[str, ...]
    kinds: Counter[str]
    problems: Problems
    _text: NDArray[np.uint8]
    _text_starts: Integers
    _ids: NDArray[np.int32]
    _id_starts: Integers

    def __len__(self) -> int:
        return len(self.flags)

    def label(self, row: int) -> str:
        """`FILE:LINE` of a row."""
        return _label(self.files[self.file_numbers[row]], int(self.line_numbers[row]))

    def texts(self, rows: Integers) -> Texts:
        """What is compared of `rows`."""
        pieces = [self._text[self._text_starts[row] : self._text_starts[row + 1]] for row in rows]
        return Texts(np.concatenate([np.zeros(0, np.uint8), *pieces]), _starts([len(piece) for piece in pieces]))

    def text_bytes(self, rows: Integers) -> Integers:
        """Length of what is compared of `rows` [rows]."""
        return self._text_starts[rows + 1] - self._text_starts[rows]

    def learned_ids(self, rows: Integers) -> NDArray[np.int32]:
        """Learned token ids of `rows`, one row after another."""
        pieces = [self._ids[self._id_starts[row] : self._id_starts[row + 1]] for row in rows]
        return np.concatenate([np.zeros(0, np.int32), *pieces])


def read_table(
    path: str,
    data: DataSpec,
    tokenizer_path: str | None,
    processes: Processes,
    shared: SharedText,
    scratch: Path | None = None,
) -> RowTable:
    """Read every row of `path`, which is one of `data`, and look at each.

    Texts and token ids, about twice the size of the file, lie in `scratch` (None: the system's temporary folder) for
    as long as the table lives.

    Raises:
        RowError: nothing is there, or a file cannot be read to its end.
        UserError: the model's tokenizer does not fit the data.
    """
    builder = _Builder()
    tasks = builder.tasks(path, data, tokenizer_path)
    with tempfile.TemporaryFile(dir=scratch) as text, tempfile.TemporaryFile(dir=scratch) as ids:
        for facts in processes.map(chunk_facts, tasks):
            builder.add(facts)
            shared.add(facts.shared_slots)
            text.write(facts.text)
            ids.write(facts.learned_ids.tobytes())
        return builder.table(_mapped(text, np.uint8), _mapped(ids, np.int32))


class _Builder:
    def __init__(self) -> None:
        self._files: dict[str, int] = {}
        self._file_numbers: list[NDArray[np.int32]] = []
        self._line_numbers: list[Integers] = []
        self._facts: list[ChunkFacts] = []
        self._problems = Problems()
        self._kinds: Counter[str] = Counter()

    def tasks(self, path: str, data: DataSpec, tokenizer_path: str | None) -> Iterator[ChunkTask]:
        """Chunks of rows, whose places are remembered here."""
        for rows in self._chunks(path, data):
            numbers = [self._files.setdefault(row.file, len(self._files)) for row in rows]
            self._file_numbers.append(np.array(numbers, dtype=np.int32))
            self._line_numbers.append(np.array([row.line_number for row in rows], dtype=np.int64))
            yield ChunkTask(tuple(rows), tokenizer_path, data.learn, data.max_length)

    def _chunks(self, path: str, data: DataSpec) -> Iterator[list[Row]]:
        rows: list[Row] = []
        characters = 0
        for row in scan_rows(path, data.format):
            if isinstance(row, RowError):
                if not row.line_number:
                    raise row
                self._problems.add(_label(row.path, row.line_number), row.problem)
                continue
            rows.append(row)
            characters += sum(len(message.content) for message in row.messages)
            if len(rows) >= _ROWS_AT_ONCE or characters >= _CHARACTERS_AT_ONCE:
                yield rows
                rows, characters = [], 0
        if rows:
            yield rows

    def add(self, facts: ChunkFacts) -> None:
        """Facts of the next chunk; text and ids are not kept."""
        number = len(self._facts)
        files = list(self._files)
        for row, problem in facts.problems:
            file = files[self._file_numbers[number][row]]
            self._problems.add(_label(file, int(self._line_numbers[number][row])), problem)
        self._kinds += facts.kinds
        self._facts.append(_without_texts(facts))

    def table(self, text: NDArray[np.uint8], ids: NDArray[np.int32]) -> RowTable:
        """Everything put together."""

        def joined(name: str, dtype: DTypeLike) -> NDArray[Any]:
            return np.concatenate([np.zeros(0, dtype), *(getattr(facts, name) for facts in self._facts)])

        learned = joined("learned", np.int32)
        return RowTable(
            flags=joined("flags", np.uint32),
            prompt_hashes=joined("prompt_hashes", np.uint64),
            row_hashes=joined("row_hashes", np.uint64),
            has_prompt=joined("has_prompt", np.bool_),
            tokens=joined("tokens", np.int32),
            learned=learned,
            line_numbers=np.concatenate([np.zeros(0, np.int64), *self._line_numbers]),
            file_numbers=np.concatenate([np.zeros(0, np.int32), *self._file_numbers]),
            files=tuple(self._files),
            kinds=self._kinds,
            problems=self._problems,
            _text=text,
            _text_starts=_starts(joined("text_lengths", np.int32)),
            _ids=ids,
            _id_starts=_starts(learned),
        )


def _without_texts(facts: ChunkFacts) -> ChunkFacts:
    nothing = np.zeros(0, dtype=np.int64)
    return ChunkFacts(
        **{**vars(facts), "text": b"", "learned_ids": nothing.astype(np.int32), "shared_slots": (nothing, nothing)}
    )


def _mapped(file: IO[bytes], dtype: DTypeLike) -> NDArray[Any]:
    """The content of a file; it stays readable when the file is closed."""
    file.flush()
    return np.memmap(file, dtype=dtype, mode="r") if file.tell() else np.zeros(0, dtype)


def _starts(lengths: Sequence[int] | NDArray[np.int32]) -> Integers:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def _label(file: str, line_number: int) -> str:
    return f"{Path(file).name[-_LABEL_CHARACTERS:]}:{line_number}"
