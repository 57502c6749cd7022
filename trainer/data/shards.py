"""Tokenized rows on disk as Arrow files, read as views of memory-mapped columns.

A shard is an Arrow stream that `datasets` writes and `datasets.Dataset.from_file` opens, with two list columns:
`ids` and `spans` (see `Encoded`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.data.row_encoding import Encoded

#: rows and tokens of one record batch: what the writer holds in memory
_CHUNK_ROWS = 16_384
_CHUNK_TOKENS = 2_000_000


@dataclass(frozen=True)
class ShardSize:
    """What a shard holds."""

    rows: int
    tokens: int


@dataclass(frozen=True)
class TokenChunk:
    """Rows one after another: row i is `ids[starts[i]:starts[i + 1]]`, its spans likewise. Views, not copies."""

    ids: NDArray[np.int32]
    starts: NDArray[np.int32]
    spans: NDArray[np.int32]
    span_starts: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.starts) - 1


class TokenTable:
    """All rows of a data set by number, in the order of its files, wherever they are mapped."""

    def __init__(self, chunks: Sequence[TokenChunk]) -> None:
        self._chunks = [chunk for chunk in chunks if len(chunk)]
        self._firsts = np.cumsum([0, *(len(chunk) for chunk in self._chunks)], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def row(self, number: int | np.int64) -> Encoded:
        """Views of one row's ids and spans."""
        index = int(np.searchsorted(self._firsts, number, side="right")) - 1
        chunk, row = self._chunks[index], int(number - self._firsts[index])
        return Encoded(
            chunk.ids[chunk.starts[row] : chunk.starts[row + 1]],
            chunk.spans[chunk.span_starts[row] : chunk.span_starts[row + 1]],
        )

    def lengths(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens of each of these rows [rows]."""
        lengths = np.empty(len(rows), dtype=np.int64)
        order = np.argsort(rows, kind="stable")
        bounds = np.searchsorted(rows[order], self._firsts)
        for index, chunk in enumerate(self._chunks):
            chosen = order[bounds[index] : bounds[index + 1]]
            if len(chosen):
                local = rows[chosen] - self._firsts[index]
                lengths[chosen] = chunk.starts[local + 1] - chunk.starts[local]
        return lengths

    @cached_property
    def learnable(self) -> NDArray[np.bool_]:
        """[rows] True where at least one learned token is left after the cut."""
        learned = [np.diff(chunk.span_starts) > 0 for chunk in self._chunks]
        return np.concatenate(learned) if learned else np.zeros(0, dtype=np.bool_)


def write_shard(path: Path, rows: Iterable[Encoded]) -> ShardSize:
    """Write an Arrow file in memory that does not grow with the number of rows; may be empty."""
    from datasets import Features, List, Value  # its import costs a second, which readers need not pay
    from datasets.arrow_writer import ArrowWriter

    features = Features({"ids": List(Value("int32")), "spans": List(Value("int32"))})
    chunk: list[Encoded] = []
    chunk_tokens = written_rows = written_tokens = 0
    with ArrowWriter(path=str(path), features=features, writer_batch_size=_CHUNK_ROWS) as writer:
        for row in rows:
            chunk.append(row)
            chunk_tokens += len(row.ids)
            if len(chunk) >= _CHUNK_ROWS or chunk_tokens >= _CHUNK_TOKENS:
                writer.write_table(_table(chunk))
                written_rows, written_tokens = written_rows + len(chunk), written_tokens + chunk_tokens
                chunk, chunk_tokens = [], 0
        if chunk:
            writer.write_table(_table(chunk))
        writer.finalize()
    return ShardSize(written_rows + len(chunk), written_tokens + chunk_tokens)


def read_shard(path: Path) -> list[TokenChunk]:
    """Map an Arrow file and return views of it. Raises OSError or ValueError if it is no such file."""
    import pyarrow as pa

    with pa.memory_map(str(path)) as source:
        batches = list(pa.ipc.open_stream(source))
    return [_chunk(batch) for batch in batches]


def _table(rows: Sequence[Encoded]) -> Any:  # noqa: ANN401
    import pyarrow as pa

    columns = {
        "ids": _column([row.ids for row in rows]),
        "spans": _column([row.spans for row in rows]),
    }
    return pa.table(columns)


def _column(lists: Sequence[NDArray[np.int32]]) -> Any:  # noqa: ANN401
    import pyarrow as pa

    starts = np.zeros(len(lists) + 1, dtype=np.int32)
    np.cumsum([len(values) for values in lists], out=starts[1:])
    return pa.ListArray.from_arrays(pa.array(starts), pa.array(np.concatenate(lists)))


def _chunk(batch: Any) -> TokenChunk:  # noqa: ANN401
    ids, spans = batch.column("ids"), batch.column("spans")
    return TokenChunk(
        ids=ids.values.to_numpy(zero_copy_only=True),
        starts=ids.offsets.to_numpy(zero_copy_only=True),
        spans=spans.values.to_numpy(zero_copy_only=True),
        span_starts=spans.offsets.to_numpy(zero_copy_only=True),
    )
