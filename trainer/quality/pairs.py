"""Near duplicates: MinHash finds candidates, the exact Jaccard similarity of their shingles decides.

A signature of 126 hashes in 18 bands of 7 makes a pair of similarity 0.8 a candidate with a probability of 98.6 %
(1 - (1 - s^7)^18), one of 0.5 with 13 %. In a band, a row is compared with the first row and the last training row
before it that share its hash: the work stays linear however large a cluster is.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

from trainer.quality.ngrams import Hashes, Integers, Ragged, Texts, sorted_unique
from trainer.quality.processes import Processes
from trainer.quality.shared_text import own_shingles, own_shingles_and_grams
from trainer.quality.sides import Sides

SIMILARITY = 0.8
_BANDS, _HASHES_A_BAND = 18, 7
_SEED = 1
#: rows with fewer shingles of their own are too short to be like another without being equal
_FEWEST_SHINGLES = 8
_SKETCH_BYTES, _PAIRS_AT_ONCE = 1_000_000, 2000
_FILTER_BITS = 24


@dataclass(frozen=True)
class SketchTask:
    """Texts to sketch; of their 13-word runs only those that `gram_filter` may hold are wanted (None: all)."""

    texts: Texts
    shared: Integers
    gram_filter: bytes | None


@dataclass(frozen=True)
class Sketch:
    """`bands` [texts, 18] are hashes of parts of the signature; `comparable` [texts] False: too short to compare."""

    bands: NDArray[np.uint32]
    comparable: NDArray[np.bool_]
    grams: Ragged


@dataclass(frozen=True)
class _VerifyTask:
    texts: Texts
    pairs: Integers
    shared: Integers


def sketch(task: SketchTask) -> Sketch:
    """Signature bands and runs of words of some texts."""
    shingles, grams = own_shingles_and_grams(task.texts, task.shared)
    size = len(shingles)
    digests = RMinHash.digest_matrix_from_flat_token_hashes(
        shingles.values, shingles.starts.astype(np.uint64), _BANDS * _HASHES_A_BAND, _SEED
    )
    signature = np.array(digests.to_rows(), dtype=np.uint64).reshape(size, _BANDS, _HASHES_A_BAND)
    bands = np.zeros((size, _BANDS), dtype=np.uint64)
    for place in range(_HASHES_A_BAND):
        bands = (bands + signature[:, :, place]) * np.uint64(0x9E3779B97F4A7C15)
        bands ^= bands >> np.uint64(29)
    if task.gram_filter is not None:
        grams = grams.where(_may_hold(task.gram_filter, grams.values))
    return Sketch((bands >> np.uint64(32)).astype(np.uint32), shingles.lengths >= _FEWEST_SHINGLES, grams)


def gram_filter(grams: Hashes) -> bytes:
    """A bit set that holds all `grams`, and few others."""
    bits = np.zeros(1 << _FILTER_BITS, dtype=np.bool_)
    bits[grams >> np.uint64(64 - _FILTER_BITS)] = True
    return np.packbits(bits).tobytes()


def near_pairs(sides: Sides, positions: Integers, sketches: Sketch, shared: Integers, processes: Processes) -> Integers:
    """Verified pairs [pairs, 2] of positions: a training row and a later position, ascending by the second.

    `sketches` are of `positions`, which ascend.
    """
    usable = np.flatnonzero(sketches.comparable)
    kept = positions[usable]
    candidates = _candidates(sketches.bands[usable], sides.is_eval[kept])
    pairs = np.stack([kept[candidates[:, 0]], kept[candidates[:, 1]]], axis=1)
    alike = list(processes.map(_verify, _verify_tasks(sides, pairs, shared)))
    found = pairs[np.concatenate([np.zeros(0, np.bool_), *alike])]
    return cast(Integers, found[np.lexsort((found[:, 0], found[:, 1]))])


def _may_hold(packed: bytes, grams: Hashes) -> NDArray[np.bool_]:
    bits = np.frombuffer(packed, dtype=np.uint8)
    place = grams >> np.uint64(64 - _FILTER_BITS)
    byte, bit = bits[place >> np.uint64(3)], (place & np.uint64(7)).astype(np.uint8)
    return cast(NDArray[np.bool_], ((byte << bit) & np.uint8(128)) != 0)


def _candidates(bands: NDArray[np.uint32], is_eval: NDArray[np.bool_]) -> Integers:
    """Pairs [pairs, 2] of rows of `bands`, the first of them a training row, both ascending."""
    if len(bands) < 2:
        return np.zeros((0, 2), dtype=np.int64)
    keys = np.zeros(0, dtype=np.uint64)
    place = np.arange(len(bands))
    for band in bands.T:
        order = np.argsort(band, kind="stable")
        new = np.concatenate([[True], band[order][1:] != band[order][:-1]])
        first = np.maximum.accumulate(np.where(new, place, 0))
        last_train = np.maximum.accumulate(np.where(is_eval[order], -1, place))
        before = np.concatenate([[-1], last_train[:-1]])
        for other in (first, before):
            wanted = (other >= first) & (other < place)
            one, two = order[other[wanted]], order[wanted]
            training = ~is_eval[one]
            new_keys = (two[training].astype(np.uint64) << np.uint64(32)) | one[training].astype(np.uint64)
            keys = sorted_unique(np.concatenate([keys, new_keys]))
    return np.stack([keys & np.uint64(0xFFFFFFFF), keys >> np.uint64(32)], axis=1).astype(np.int64)


def _verify_tasks(sides: Sides, pairs: Integers, shared: Integers) -> Iterator[_VerifyTask]:
    for start in range(0, len(pairs), _PAIRS_AT_ONCE):
        some = pairs[start : start + _PAIRS_AT_ONCE]
        rows, local = np.unique(some, return_inverse=True)
        yield _VerifyTask(sides.texts(rows), local.reshape(some.shape), shared)


def _verify(task: _VerifyTask) -> NDArray[np.bool_]:
    shingles = own_shingles(task.texts, task.shared)
    sets = [
        sorted_unique(shingles.values[start:stop])
        for start, stop in zip(shingles.starts[:-1], shingles.starts[1:], strict=True)
    ]
    return np.array([_jaccard(sets[one], sets[two]) >= SIMILARITY for one, two in task.pairs], dtype=np.bool_)


def _jaccard(one: Hashes, two: Hashes) -> float:
    small, large = (one, two) if len(one) <= len(two) else (two, one)
    if len(small) < SIMILARITY * len(large):
        return 0.0
    place = np.minimum(np.searchsorted(large, small), len(large) - 1)
    common = int(np.count_nonzero(large[place] == small))
    return common / (len(one) + len(two) - common)
