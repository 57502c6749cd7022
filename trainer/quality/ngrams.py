"""Runs of bytes and of words in many texts at once, as 64-bit hashes in flat arrays."""

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Integers = NDArray[np.int64]

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_POWERS = np.array([pow(0x9E3779B97F4A7C15, k, 2**64) for k in range(1024)], dtype=np.uint64)


@dataclass(frozen=True)
class Ragged:
    """Rows of different lengths, one after another: row i is `values[starts[i]:starts[i + 1]]`."""

    values: Hashes
    starts: Integers

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> Integers:
        """Values of each row [rows]."""
        return np.diff(self.starts)

    def rows(self) -> Integers:
        """The row of each value [values]."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def where(self, kept: NDArray[np.bool_]) -> "Ragged":
        """Only the values at which `kept` [values] is True; the rows stay."""
        before = np.concatenate([[0], np.cumsum(kept)])
        return Ragged(self.values[kept], before[self.starts])


@dataclass(frozen=True)
class Texts:
    """UTF-8 texts, one after another: text i is `data[starts[i]:starts[i + 1]]`."""

    data: NDArray[np.uint8]
    starts: Integers

    @classmethod
    def of(cls, texts: list[bytes]) -> "Texts":
        """Put texts together."""
        starts = np.concatenate([[0], np.cumsum([len(text) for text in texts])]).astype(np.int64)
        return cls(np.frombuffer(b"".join(texts), dtype=np.uint8), starts)

    def shingles(self, width: int) -> Ragged:
        """Hashes of all runs of `width` bytes."""
        return runs(Ragged(self.data.astype(np.uint64) + np.uint64(1), self.starts), width)

    def words(self) -> Ragged:
        """Hashes of all words: runs of ASCII letters and digits and of other scripts' characters.

        Characters of scripts without spaces (U+3000 to U+DFFF, and above U+FFFF) are words by themselves.
        """
        begins = self.word_begins()
        if not len(begins):
            return Ragged(np.zeros(0, dtype=np.uint64), np.zeros_like(self.starts))
        word = np.cumsum(np.bincount(begins, minlength=len(self.data))) - 1
        place = np.arange(len(self.data)) - begins[np.maximum(word, 0)]
        parts = np.where(_IN_WORD[self.data], self.data.astype(np.uint64) + np.uint64(1), np.uint64(0))
        sums = np.add.reduceat(parts * _POWERS[place % len(_POWERS)], begins)
        return Ragged(_mixed(sums), np.searchsorted(begins, self.starts))

    def word_begins(self) -> Integers:
        """The byte at which each word begins [words]."""
        inside = _IN_WORD[self.data]
        before = np.zeros_like(inside)
        before[1:] = inside[:-1]
        before[self.starts[:-1][self.starts[:-1] < len(self.data)]] = False
        return np.flatnonzero((inside & ~before) | _OWN_WORD[self.data])


def runs(items: Ragged, width: int) -> Ragged:
    """Hashes of `width` items in a row; a row with fewer has none."""
    counts = np.maximum(items.lengths - width + 1, 0)
    starts = np.concatenate([[0], np.cumsum(counts)])
    size = len(items.values) - width + 1
    if size <= 0:
        return Ragged(np.zeros(0, dtype=np.uint64), np.zeros_like(items.starts))
    hashes = np.zeros(size, dtype=np.uint64)
    for offset in range(width):
        hashes *= _MULTIPLIER
        hashes += items.values[offset : offset + size]
    whole = np.ones(size + width, dtype=np.bool_)
    filled = items.lengths > 0
    firsts, ends = items.starts[:-1][filled], items.starts[1:][filled]
    for offset in range(1, width):
        whole[np.maximum(ends - offset, firsts)] = False
    return Ragged(_mixed(hashes[whole[:size]]), starts)


def sorted_unique(values: Hashes) -> Hashes:
    """Distinct values in ascending order (a sort is many times faster than numpy.unique's hash table)."""
    if not len(values):
        return values
    ordered = np.sort(values)
    fresh = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    return cast(Hashes, ordered[fresh])


def longest_byte_run(texts: Texts) -> Integers:
    """Length of the longest run of one ASCII letter or digit in each text [texts]."""
    data, rows = texts.data, len(texts.starts) - 1
    longest = np.zeros(rows, dtype=np.int64)
    if not len(data):
        return longest
    changes = np.concatenate([[True], data[1:] != data[:-1]])
    changes[texts.starts[:-1][texts.starts[:-1] < len(data)]] = True
    begins = np.flatnonzero(changes)
    lengths = np.diff(np.concatenate([begins, [len(data)]]))
    counted = _IN_WORD[data[begins]] & (data[begins] < 128)
    row = np.searchsorted(texts.starts, begins[counted], side="right") - 1
    np.maximum.at(longest, row, lengths[counted])
    return longest


def repeated_share(words: Ragged, width: int) -> NDArray[np.float64]:
    """Share of the runs of `width` words that repeat an earlier one of the same row [rows]; 0 where there is none."""
    grams = runs(words, width)
    rows = grams.rows()
    order = np.lexsort((grams.values, rows))
    values, rows = grams.values[order], rows[order]
    again = np.zeros(len(values), dtype=np.bool_)
    again[1:] = (values[1:] == values[:-1]) & (rows[1:] == rows[:-1])
    return np.bincount(rows, weights=again, minlength=len(words)) / np.maximum(grams.lengths, 1)


def _mixed(hashes: Hashes) -> Hashes:
    """Spread every bit over the whole word (the finalizer of SplitMix64)."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))


def _byte_table(*ranges: tuple[int, int]) -> NDArray[np.bool_]:
    table = np.zeros(256, dtype=np.bool_)
    for first, last in ranges:
        table[first : last + 1] = True
    return table


_IN_WORD = _byte_table((ord("0"), ord("9")), (ord("A"), ord("Z")), (ord("a"), ord("z")), (0x80, 0xFF))
_OWN_WORD = _byte_table((0xE3, 0xED), (0xF0, 0xF4))
