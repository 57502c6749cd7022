"""Text that many rows share is a template, not a sign that the rows are alike.

An instruction that stands above a thousand different inputs would make all of them near duplicates. So the shingles
that more than 2 % of all rows have (and more than 50 rows) are left out of every comparison, and so are runs of words
that mostly begin such shingles. They are counted in a
table of 2^22 slots; a slot that unrelated shingles share adds about a hundredth of the limit at 1,000 bytes a row.
"""

import numpy as np
from numpy.typing import NDArray

from trainer.quality.ngrams import Integers, Ragged, Texts, runs, sorted_unique

SHINGLE_BYTES = 7
GRAM_WORDS = 13
_SLOT_BITS = 22
_SHARE, _AT_LEAST_ROWS = 0.02, 50


class SharedText:
    """Counts the rows in which each slot occurs."""

    def __init__(self) -> None:
        self._rows = np.zeros(1 << _SLOT_BITS, dtype=np.int32)

    def add(self, slots: tuple[Integers, Integers]) -> None:
        """Count what `slots_of` found in a chunk of rows."""
        self._rows[slots[0]] += slots[1].astype(np.int32)

    def slots(self, rows: int) -> Integers:
        """The slots that more than 2 % of `rows` rows have, ascending."""
        return np.flatnonzero(self._rows > max(_SHARE * rows, _AT_LEAST_ROWS))


def slots_of(texts: Texts) -> tuple[Integers, Integers]:
    """(slots of the shingles of `texts`, ascending; in how many texts each occurs)."""
    shingles = texts.shingles(SHINGLE_BYTES)
    keyed = (shingles.rows().astype(np.uint64) << np.uint64(_SLOT_BITS)) | _slot(shingles)
    distinct = sorted_unique(keyed) & np.uint64((1 << _SLOT_BITS) - 1)
    ordered = np.sort(distinct)
    begins = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(ordered) else np.zeros(0, int)
    return ordered[begins].astype(np.int64), np.diff(np.concatenate([begins, [len(ordered)]]))


def own_shingles(texts: Texts, shared: Integers) -> Ragged:
    """The shingles of `texts` whose slots are not `shared` (see `SharedText.slots`)."""
    shingles = texts.shingles(SHINGLE_BYTES)
    return shingles.where(_own(shingles, shared))


def own_shingles_and_grams(texts: Texts, shared: Integers) -> tuple[Ragged, Ragged]:
    """The same, and the runs of 13 words of which most words do not begin a shared shingle."""
    shingles, words = texts.shingles(SHINGLE_BYTES), texts.words()
    own = _own(shingles, shared)
    row = words.rows()
    shingle = shingles.starts[row] + texts.word_begins() - texts.starts[row]
    known = shingle < shingles.starts[row + 1]
    own_word = np.ones(len(row), dtype=np.int64)
    own_word[known] = own[shingle[known]]
    own_before = np.concatenate([[0], np.cumsum(own_word)])
    grams = runs(words, GRAM_WORDS)
    row = grams.rows()
    first = np.arange(len(row)) - grams.starts[row] + words.starts[row]
    mostly_own = 2 * (own_before[first + GRAM_WORDS] - own_before[first]) > GRAM_WORDS
    return shingles.where(own), grams.where(mostly_own)


def _own(shingles: Ragged, shared: Integers) -> NDArray[np.bool_]:
    table: NDArray[np.bool_] = np.ones(1 << _SLOT_BITS, dtype=np.bool_)
    table[shared] = False
    return table[_slot(shingles).astype(np.int64)]


def _slot(shingles: Ragged) -> NDArray[np.uint64]:
    return shingles.values & np.uint64((1 << _SLOT_BITS) - 1)
