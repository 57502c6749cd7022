"""The data quality gate on a large file with planted defects: how long it takes, and what of them it finds.

Rows are made of the words and sentences in `examples/wordnet-instruct` (about 600 characters each, every one
different), as instruction, input and output; the same `--seed` gives the same bytes. Defects stand on rows of their
own, so every count is known. `found` above `planted` are false alarms (or a defect that shows twice).

Run `python -m benchmarks.check_data`; the last line is one JSON object. `cpu_seconds` sums all processes.
"""

import argparse
import json
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from trainer.common.environment import PROCESS_ENVIRONMENT
from trainer.quality.gate import check_data
from trainer.spec import DataSpec, QualityReport, QualityThresholds

EXAMPLES = Path(__file__).parent.parent / "examples"
LONG_WORDS = 1000
Row = dict[str, str]
Defect = Callable[[Row, random.Random], Row | str]

INSTRUCTIONS = (
    "Explain in your own words what the following notes are about, and give one more example of your own.",
    "Write a short text in which all of these words occur.",
    "Summarize the notes below for a reader who has never heard of the subject.",
    "Turn these notes into a list of definitions, the most important one first.",
    "Which of the following belong together? Give your reasons.",
)


def make_rows(count: int, draw: random.Random) -> list[Row]:
    """Rows of which no two are alike."""
    source = [json.loads(line) for line in (EXAMPLES / "wordnet-instruct" / "train.jsonl").open(encoding="utf-8")]
    sentences = [row["output"] for row in source if len(row["output"].split()) > 3]
    words = sorted({word for row in source for word in (row["input"] + " " + row["output"]).split() if word.isalpha()})

    def sentence() -> str:
        start = draw.choice(sentences).split()
        return " ".join([*start[: draw.randint(2, 5)], *draw.choices(words, k=draw.randint(5, 14))])

    return [
        {
            "instruction": draw.choice(INSTRUCTIONS),
            "input": "; ".join(sentence() for _ in range(draw.randint(1, 3))),
            "output": ". ".join(sentence() for _ in range(draw.randint(2, 6))) + ".",
        }
        for _ in range(count)
    ]


def edited(row: Row, draw: random.Random) -> Row:
    """The row with one word of its input replaced: a near duplicate."""
    words = row["input"].split()
    words[draw.randrange(len(words))] = "otherwise"
    return {**row, "input": " ".join(words)}


def _appended(text: str) -> Defect:
    return lambda row, _: {**row, "output": f"{row['output']} {text}"}


def _digits(draw: random.Random, length: int) -> str:
    return "".join(draw.choices("ABCDEFGHJKLMNPQRSTUVWXYZ23456789", k=length))


#: defects of single rows by the check that finds them; parts of secrets are put together here, so this file has none
DEFECTS: dict[str, Defect] = {
    "unreadable_rows": lambda row, _: json.dumps(row)[:-9],
    "empty_responses": lambda row, _: {**row, "output": " "},
    "tiny_responses": lambda row, _: {**row, "output": "k"},
    "mojibake": _appended("the cafÃ© on the corner, itâ€™s closed"),
    "control_characters": _appended("a bell\x07 and a hole \ufffd"),
    "refusals": lambda row, _: {**row, "output": "I'm sorry, but I cannot help with that. " + row["output"]},
    "boilerplate": _appended("Click here to subscribe to our newsletter."),
    "repetition": lambda row, _: {**row, "output": " ".join(row["output"].split()[:6] * 12)},
    "secrets": lambda row, draw: {**row, "output": f"{row['output']} AKIA{_digits(draw, 16)}"},
    "personal_data": lambda row, draw: {**row, "output": f"{row['output']} {_digits(draw, 8).lower()}@gmail.com"},
    "truncated_rows": lambda row, draw: {
        **row,
        "output": " ".join(f"item{draw.randrange(10**5)}" for _ in range(LONG_WORDS)),
    },
}


def plant(
    train: list[Row], evaluation: list[Row], share: float, draw: random.Random
) -> tuple[list[str], dict[str, int]]:
    """Lines of the training file, and how many defects of each kind there are; `evaluation` is changed in place."""
    every = max(1, round(len(train) * share))
    places = iter(draw.sample(range(len(train) // 2, len(train)), every * (len(DEFECTS) + 3)))
    clean = draw.sample(range(len(train) // 2), every * 3)
    rows: list[Row | str] = list(train)
    for defect in DEFECTS.values():
        for _ in range(every):
            place = next(places)
            rows[place] = defect(train[place], draw)
    for number in range(every):
        rows[next(places)] = train[clean[number]]
        rows[next(places)] = edited(train[clean[every + number]], draw)
        rows[next(places)] = {
            **train[clean[2 * every + number]],
            "output": train[next_free(clean, draw, train)]["output"],
        }
    leaks = max(1, round(len(evaluation) * share))
    for number in range(leaks):
        evaluation[3 * number] = train[clean[number]]
        evaluation[3 * number + 1] = edited(train[clean[every + number]], draw)
        text = " ".join(train[clean[2 * every + number]]["input"].split()[:14])
        evaluation[3 * number + 2] = {
            **evaluation[3 * number + 2],
            "input": f"{text} {evaluation[3 * number + 2]['input']}",
        }
    planted = dict.fromkeys([*DEFECTS, "exact_duplicates", "near_duplicates"], every)
    planted |= {"conflicting_responses": 2 * every}
    planted |= dict.fromkeys(["leakage_exact", "leakage_near", "leakage_ngrams"], leaks)
    return [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows], planted


def next_free(taken: list[int], draw: random.Random, train: list[Row]) -> int:
    """A training row that no defect is made of."""
    used = set(taken)
    while (place := draw.randrange(len(train) // 2)) in used:
        pass
    return place


def measure(folder: Path, options: argparse.Namespace) -> tuple[QualityReport, dict[str, int], int]:
    """(report, what was planted, bytes of the training file)."""
    draw = random.Random(options.seed)
    train, evaluation = make_rows(options.rows, draw), make_rows(options.eval_rows, draw)
    lines, planted = plant(train, evaluation, options.defects, draw)
    paths = folder / "train.jsonl", folder / "eval.jsonl"
    paths[0].write_text("\n".join(lines) + "\n", encoding="utf-8")
    paths[1].write_text("".join(json.dumps(row) + "\n" for row in evaluation), encoding="utf-8")
    del train, evaluation, lines
    data = DataSpec(train=str(paths[0]), eval=str(paths[1]), max_length=1024)
    report = check_data(data, str(EXAMPLES / "tiny-llama"), QualityThresholds(), options.processes)
    return report, planted, paths[0].stat().st_size


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--eval-rows", type=int, default=2000)
    parser.add_argument("--defects", type=float, default=0.002, help="share of rows planted with each defect")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ.update(PROCESS_ENVIRONMENT)
    with tempfile.TemporaryDirectory() as folder:
        before_seconds = time.process_time()
        report, planted, size_bytes = measure(Path(folder), options)
        cpu_seconds = time.process_time() - before_seconds
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = {finding.check: finding.rows for finding in report.findings}
    for check, rows in planted.items():
        sys.stderr.write(f"{check:<22} planted {rows:>6,} found {found[check]:>6,}\n")
    summary = {
        "rows": options.rows,
        "megabytes": round(size_bytes / 1e6, 1),
        "processes": options.processes,
        "seconds": report.seconds,
        "rows_per_second": round(options.rows / report.seconds),
        "cpu_seconds_with_making_rows": round(cpu_seconds + children.ru_utime + children.ru_stime, 1),
        "peak_megabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3),
        "planted": planted,
        "found": {check: found[check] for check in planted},
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
