"""Checks that compare rows with each other: duplicates among training rows, evaluation rows that were trained on."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.quality.ngrams import Hashes, Integers, Ragged, sorted_unique
from trainer.quality.observation import Observation, of_rows
from trainer.quality.pairs import Sketch, SketchTask, gram_filter, near_pairs, sketch
from trainer.quality.processes import Processes
from trainer.quality.shared_text import GRAM_WORDS
from trainer.quality.sides import Sides

#: a run of words in more training rows than this is a template (as in the GPT-3 paper's decontamination)
TEMPLATE_ROWS = 10
_SKETCH_BYTES = 1_000_000
_NONE = -1


@dataclass(frozen=True)
class _Matches:
    """For each position an earlier one that it repeats, or -1."""

    partner: Integers

    def observation(self, check: str, sides: Sides, what: str) -> Observation:
        """Those of `sides` that `check` is about, with their partners."""
        among_eval = check.startswith("leakage")
        chosen = np.flatnonzero((self.partner != _NONE) & (sides.is_eval == among_eval))
        total = len(sides.evaluation) if among_eval else len(sides.train)
        lines = (f"{sides.label(int(row))} (as {sides.label(int(self.partner[row]))})" for row in chosen)
        return of_rows(check, len(chosen), total, lines, what)


def exact_observations(sides: Sides) -> Iterator[Observation]:
    """Equal rows, and equal prompts with different responses."""
    repeated = _repeated(sides)
    yield repeated.observation("exact_duplicates", sides, "training rows repeat an earlier one exactly")
    conflicts = _Matches(_conflicts(sides))
    yield conflicts.observation(
        "conflicting_responses", sides, "training rows have a prompt that another row answers differently"
    )
    yield repeated.observation("leakage_exact", sides, f"{sides.judged} rows are {sides.known} rows too")
    known = _first_train(sides.prompt_hashes, len(sides.train))
    known[(repeated.partner != _NONE) | ~sides.has_prompt] = _NONE
    yield _Matches(known).observation(
        "leakage_prompts", sides, f"{sides.judged} rows have the prompt of a training row with another response"
    )


def near_observations(sides: Sides, shared: Integers, processes: Processes) -> Iterator[Observation]:
    """Near duplicates, and runs of 13 words in common. Rows that are equal were found before and are left out."""
    positions = np.flatnonzero(_repeated(sides).partner == _NONE)
    border = int(np.searchsorted(positions, len(sides.train)))
    held_out = _sketches(sides, positions[border:], shared, None, processes)
    grams = sorted_unique(held_out.grams.values)
    trained = _sketches(sides, positions[:border], shared, gram_filter(grams), processes)
    both = Sketch(
        np.concatenate([trained.bands, held_out.bands]),
        np.concatenate([trained.comparable, held_out.comparable]),
        held_out.grams,
    )
    pairs = near_pairs(sides, positions, both, shared, processes)
    partner = np.full(len(sides), _NONE, dtype=np.int64)
    partner[pairs[::-1, 1]] = pairs[::-1, 0]
    near = _Matches(partner)
    yield near.observation("near_duplicates", sides, "training rows are nearly an earlier one")
    yield near.observation("leakage_near", sides, f"{sides.judged} rows are nearly {sides.one_known}")
    overlap = np.full(len(sides), _NONE, dtype=np.int64)
    overlap[positions[border:]] = _overlaps(grams, trained.grams, held_out.grams, positions[:border])
    yield _Matches(overlap).observation(
        "leakage_ngrams",
        sides,
        f"{sides.judged} rows share {GRAM_WORDS} words in a row with 1 to {TEMPLATE_ROWS} training rows",
    )


def _repeated(sides: Sides) -> _Matches:
    """Training rows by an equal training row before them, evaluation rows by any equal training row."""
    return _Matches(_first_train(sides.row_hashes, len(sides.train)))


def _first_train(hashes: Hashes, train: int) -> Integers:
    """The first training position with the same hash, if it comes before; training positions come first."""
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    begins = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(order) else order
    first = np.repeat(order[begins], np.diff(np.concatenate([begins, [len(order)]])))
    partner = np.full(len(hashes), _NONE, dtype=np.int64)
    partner[order] = np.where((first < order) & (first < train), first, _NONE)
    return partner


def _conflicts(sides: Sides) -> Integers:
    """The first training row with the same prompt and another response, by training position; -1 for none."""
    train = len(sides.train)
    prompts, rows = sides.prompt_hashes[:train], sides.row_hashes[:train]
    order = np.lexsort((np.arange(train), prompts))
    ordered = prompts[order]
    begins = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if train else order
    sizes = np.diff(np.concatenate([begins, [train]]))
    first = np.repeat(order[begins], sizes)
    differs = rows[order] != rows[first]
    other = np.where(differs, order, train)
    other = np.repeat(np.minimum.reduceat(other, begins), sizes) if train else other
    partner = np.full(len(sides), _NONE, dtype=np.int64)
    found = np.where(differs, first, np.where(other < train, other, _NONE))
    partner[order] = np.where(sides.has_prompt[:train][order], found, _NONE)
    return partner


def _sketches(
    sides: Sides, positions: Integers, shared: Integers, wanted: bytes | None, processes: Processes
) -> Sketch:
    batches = sides.batches(positions, _SKETCH_BYTES)
    tasks = (SketchTask(sides.texts(batch), shared, wanted) for batch in batches)
    parts = list(processes.map(sketch, tasks)) or [sketch(SketchTask(sides.texts(positions), shared, wanted))]
    values = np.concatenate([part.grams.values for part in parts])
    lengths = np.concatenate([part.grams.lengths for part in parts])
    return Sketch(
        np.concatenate([part.bands for part in parts]),
        np.concatenate([part.comparable for part in parts]),
        Ragged(values, np.concatenate([[0], np.cumsum(lengths)])),
    )


def _overlaps(grams: Hashes, trained: Ragged, held_out: Ragged, positions: Integers) -> Integers:
    """For each evaluation row the position of a training row with which it shares a run of words, or -1."""
    if not len(grams):
        return np.full(len(held_out), _NONE, dtype=np.int64)
    place = np.minimum(np.searchsorted(grams, trained.values), len(grams) - 1)
    hit = grams[place] == trained.values
    place, rows = place[hit], trained.rows()[hit]
    # A run that a training row holds twice counts once.
    order = np.lexsort((rows, place))
    place, rows = place[order], rows[order]
    fresh: NDArray[np.bool_] = np.ones(len(place), dtype=np.bool_)
    fresh[1:] = (place[1:] != place[:-1]) | (rows[1:] != rows[:-1])
    place, rows = place[fresh], rows[fresh]
    counts = np.bincount(place, minlength=len(grams))
    source = np.full(len(grams), _NONE, dtype=np.int64)
    source[place[::-1]] = positions[rows[::-1]]
    source[counts > TEMPLATE_ROWS] = _NONE
    found = source[np.searchsorted(grams, held_out.values)]
    first = np.full(len(held_out), _NONE, dtype=np.int64)
    in_rows = held_out.rows()[found != _NONE][::-1]
    first[in_rows] = found[found != _NONE][::-1]
    return first
