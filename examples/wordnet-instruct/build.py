"""Builds the WordNet instruction rows: `python build.py --rows 4000`."""

import argparse
import json
import random
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice, zip_longest
from pathlib import Path

from wordnet import Side, Synset, read_synsets

Row = dict[str, str]
Synsets = dict[str, Synset]
Task = Callable[[Synset, Synsets, random.Random], Row | None]

LONGEST_INPUT, LONGEST_OUTPUT = 100, 90


def row(instruction: str, text: str, output: str) -> Row | None:
    """Build one row; None when it would have no output or not be short."""
    if len(text) > LONGEST_INPUT or not 0 < len(output) <= LONGEST_OUTPUT:
        return None
    return {"instruction": instruction, "input": text, "output": output}


def define(synset: Synset, _: Synsets, rng: random.Random) -> Row | None:
    """Definition of a word; the part of speech is asked for, or given in the answer."""
    word, part_of_speech = rng.choice(synset.words), synset.part_of_speech
    if rng.random() < 0.5:
        return row(f'Define the {part_of_speech} "{word}".', "", synset.definition)
    answer = f"({part_of_speech}) {synset.definition}"
    return row("Define the word and name its part of speech.", word, answer)


def synonyms(synset: Synset, _: Synsets, rng: random.Random) -> Row | None:
    """The other words of a synset."""
    if len(synset.words) < 2:
        return None
    word = rng.choice(synset.words)
    others = ", ".join(other for other in synset.words if other != word)
    return row("Give synonyms.", f"{word}: {synset.definition}", others)


def example(synset: Synset, _: Synsets, rng: random.Random) -> Row | None:
    """A sentence in which the word is used."""
    pairs = [(w, s) for s in synset.examples for w in synset.words if w.lower() in s.lower()]
    if not pairs:
        return None
    word, sentence = rng.choice(pairs)
    return row(f"Use the {synset.part_of_speech} in an example.", word, sentence)


def hypernym(synset: Synset, synsets: Synsets, rng: random.Random) -> Row | None:
    """The broader term."""
    broader = [synsets[key].words[0] for key in synset.hypernyms if key in synsets]
    if not broader:
        return None
    word = rng.choice(synset.words)
    return row("Name the broader term.", f"{word}: {synset.definition}", broader[0])


TASKS: tuple[Task, ...] = (define, synonyms, example, hypernym)


def task_rows(task: Task, side: Side, synsets: Synsets, seed: int) -> list[Row]:
    """Make all rows of one task on one side, shuffled; a larger request extends a smaller one."""
    rng = random.Random(f"{seed} {side} {task.__name__}")
    made = (task(synset, synsets, rng) for synset in synsets.values() if synset.side == side)
    rows = [row for row in made if row]
    rng.shuffle(rows)
    return rows


def prompt(row: Row) -> tuple[str, str]:
    """What a model sees of a row."""
    return row["instruction"], row["input"]


def take(side: Side, count: int, synsets: Synsets, seed: int, seen: Iterable[Row] = ()) -> list[Row]:
    """Take turns between the tasks until there are `count` rows, none with a prompt of `seen`."""
    turns = zip_longest(*(task_rows(task, side, synsets, seed) for task in TASKS))
    rows: Iterator[Row | None] = chain.from_iterable(turns)
    prompts = {prompt(row) for row in seen}
    taken = list(islice((row for row in rows if row and prompt(row) not in prompts), count))
    if len(taken) < count:
        raise SystemExit(f"{side}: asked for {count:,} rows, WordNet gives {len(taken):,}")
    return taken


def write_jsonl(path: Path, rows: Iterable[Row]) -> None:
    """Write one JSON object a line."""
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")


def main() -> None:
    """Write train.jsonl and eval.jsonl."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    parser.add_argument("--rows", type=int, default=4000, help="training rows")
    parser.add_argument("--eval-rows", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output-dir", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()

    synsets = {synset.key: synset for synset in read_synsets(options.wordnet)}
    options.output_dir.mkdir(parents=True, exist_ok=True)
    evaluation = take("eval", options.eval_rows, synsets, options.seed)
    training = take("train", options.rows, synsets, options.seed, seen=evaluation)
    for name, rows in (("train", training), ("eval", evaluation)):
        path = options.output_dir / f"{name}.jsonl"
        write_jsonl(path, rows)
        print(f"{path}: {len(rows):,} rows")


if __name__ == "__main__":
    main()
