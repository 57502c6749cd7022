"""Checks of the evaluation rows as a sample: alike in length and language, and enough of them.

How many rows are enough. Trials are compared on the same rows, so what blurs a difference of their losses is the
standard deviation of the per-row differences. With n rows, two-sided 5 % and a power of 80 %, the smallest relative
difference that is seen is

    difference = (1.96 + 0.84) * PAIRED * CV / sqrt(n)

CV is the coefficient of variation of the loss of single rows, as a ratio estimate: the losses' sum s and number t of
learned tokens of each row give residuals s - L * t with L = sum(s) / sum(t), and CV is their standard deviation over
L * mean(t). Before any training it is estimated as LIFT times that of a unigram model of the training responses.
PAIRED is the standard deviation of the per-row differences of two trials over that of one trial's losses.

Both constants come from six trials of `examples/tiny-llama` on `examples/wordnet-instruct` (400 evaluation rows): the
trials' CV was 0.18 to 0.20 where the unigram model's is 0.07; PAIRED was 0.12 to 0.21 for losses that differ by up to
1.2 % (a correlation of 0.98 to 0.99), about 0.4 at 5 % and 0.7 at 25 %. On other models the estimate is rough.
"""

import math
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from trainer.quality.observation import Observation
from trainer.quality.sides import Side, Sides
from trainer.spec.quality import QualityThresholds

PAIRED = 0.25
LIFT = 2.8
_Z = 1.96 + 0.84
#: the Kolmogorov-Smirnov distance that chance exceeds once in a hundred times is this over the root of the size
_KS_CHANCE = 1.63
_ROWS_AT_ONCE = 20_000
_LANGUAGE_ROWS, _LANGUAGE_CHARACTERS, _LANGUAGE_BYTES = 1000, 40, 500
_RARE_LANGUAGE = 0.02


def length_shift(sides: Sides) -> Observation:
    """Kolmogorov-Smirnov distance of the response lengths, less what chance explains."""
    train, held_out = (np.sort(side.table.learned[side.rows]) for side in (sides.train, sides.evaluation))
    every = np.concatenate([train, held_out])
    above = [np.searchsorted(lengths, every, side="right") / len(lengths) for lengths in (train, held_out)]
    distance = float(np.abs(above[0] - above[1]).max())
    chance = _KS_CHANCE * math.sqrt(1 / len(train) + 1 / len(held_out))
    medians = f"the median response has {np.median(train):,.0f} and {np.median(held_out):,.0f} tokens"
    message = f"response lengths are {distance:.2f} apart, of which chance explains {chance:.2f}; {medians}"
    return Observation("length_shift", max(0.0, distance - chance), message=message)


def language_shift(sides: Sides) -> tuple[Observation, dict[str, float]]:
    """Total variation distance of the languages, less what chance explains, and each language's share of training."""
    if find_spec("py3langid") is None:
        return Observation("language_shift", not_run="py3langid is not installed"), {}
    train, held_out = _languages(sides.train), _languages(sides.evaluation)
    sizes = train.total(), held_out.total()
    if not all(sizes):
        reason = f"no rows of {_LANGUAGE_CHARACTERS} characters or more on both sides"
        return Observation("language_shift", not_run=reason), {}
    both = train + held_out
    names = [name for name, rows in both.items() if rows >= _RARE_LANGUAGE * both.total()]
    shares = np.array(
        [[side[name] / size for name in names] for side, size in zip((train, held_out), sizes, strict=True)]
    )
    shares = np.concatenate([shares, 1 - shares.sum(axis=1, keepdims=True)], axis=1)
    pooled = np.average(shares, axis=0, weights=sizes)
    distance = float(np.abs(shares[0] - shares[1]).sum() / 2)
    spread = np.sqrt(pooled * (1 - pooled) * (1 / sizes[0] + 1 / sizes[1]))
    chance = float(2 * math.sqrt(2 / math.pi) * spread.sum() / 2)
    message = (
        f"languages are {distance:.2f} apart, of which chance explains {chance:.2f} "
        f"(a sample of {sizes[0]:,} training and {sizes[1]:,} evaluation rows)"
    )
    shown = {f"language_{name}": round(train[name] / sizes[0], 4) for name in sorted(names)}
    return Observation("language_shift", max(0.0, distance - chance), message=message), shown


def eval_size(sides: Sides, thresholds: QualityThresholds) -> tuple[Observation, dict[str, float]]:
    """The smallest relative loss difference that the evaluation rows resolve; see the module's text."""
    variation = _unigram_variation(sides)
    rows = len(sides.evaluation)
    if not variation:
        return Observation("eval_size", not_run="the responses hold too few tokens to judge by"), {}
    resolved = _Z * PAIRED * LIFT * variation / math.sqrt(rows)
    wanted = thresholds.eval_size.warn or thresholds.eval_size.fail or 0.01
    enough = math.ceil((_Z * PAIRED * LIFT * variation / wanted) ** 2)
    message = (
        f"{rows:,} evaluation rows tell losses apart that differ by {resolved:.2%} or more; for {wanted:.2%}, "
        f"{enough:,} rows are enough (estimate: losses of single rows vary by {LIFT * variation:.2f} of their mean, "
        f"differences of two trials by {PAIRED:g} of that)"
    )
    numbers = {"loss_variation": round(LIFT * variation, 4), "eval_rows_enough": float(enough)}
    return Observation("eval_size", resolved, rows=rows, message=message), numbers


def _unigram_variation(sides: Sides) -> float:
    """Coefficient of variation of the rows' losses in a unigram model; 0 where there are too few."""
    size = 1 + max(
        (int(ids.max()) for side in (sides.train, sides.evaluation) for ids in _ids(side) if len(ids)), default=0
    )
    counts = np.ones(size, dtype=np.float64)
    for ids in _ids(sides.train):
        counts += np.bincount(ids, minlength=size)
    losses = -np.log(counts / counts.sum())
    tokens = sides.evaluation.table.learned[sides.evaluation.rows].astype(np.float64)
    sums = np.concatenate([_row_sums(losses, side_rows) for side_rows in _blocks(sides.evaluation)])
    used = tokens > 0
    if used.sum() < 2:
        return 0.0
    sums, tokens = sums[used], tokens[used]
    mean = sums.sum() / tokens.sum()
    return float((sums - mean * tokens).std(ddof=1) / (mean * tokens.mean()))


def _row_sums(losses: NDArray[np.float64], block: Side) -> NDArray[np.float64]:
    owner = np.repeat(np.arange(len(block)), block.table.learned[block.rows])
    weights = losses[block.table.learned_ids(block.rows)]
    return np.bincount(owner, weights=weights, minlength=len(block)).astype(np.float64)


def _ids(side: Side) -> Iterator[NDArray[np.int32]]:
    for block in _blocks(side):
        yield block.table.learned_ids(block.rows)


def _blocks(side: Side) -> Iterator[Side]:
    for start in range(0, len(side), _ROWS_AT_ONCE):
        yield Side(side.table, side.rows[start : start + _ROWS_AT_ONCE])


def _languages(side: Side) -> Counter[str]:
    """Languages of a sample of rows spread evenly over the side."""
    from py3langid import classify

    sample = side.rows[np.linspace(0, len(side) - 1, min(_LANGUAGE_ROWS, len(side)), dtype=np.int64)]
    texts = side.table.texts(sample)
    found: Counter[str] = Counter()
    for start, stop in zip(texts.starts[:-1], texts.starts[1:], strict=True):
        text = texts.data[start : min(stop, start + _LANGUAGE_BYTES)].tobytes().decode("utf-8", "ignore")
        if len(text) >= _LANGUAGE_CHARACTERS:
            found[classify(text)[0]] += 1
    return found
