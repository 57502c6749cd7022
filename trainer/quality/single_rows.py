"""Checks that look at one row at a time, over both files."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from trainer.quality.observation import Observation, of_rows
from trainer.quality.rowfacts import ROW_CHECKS, TINY_CHARACTERS, flagged
from trainer.quality.table import RowTable

_WHAT = {
    "empty_responses": "rows have an empty response",
    "tiny_responses": f"rows have a response of fewer than {TINY_CHARACTERS} characters",
    "truncated_rows": "rows are longer than {limit}",
    "truncated_responses": "rows have no token of the response left within {limit}; training leaves them out",
    "mojibake": "rows look as if they were decoded with the wrong encoding",
    "control_characters": "rows hold control characters or U+FFFD",
    "refusals": "rows have a response that refuses or speaks as an AI model",
    "boilerplate": "rows hold placeholders, chat-template markers or web page remains",
    "repetition": "rows have a response that repeats itself",
    "secrets": "rows hold secrets",
    "personal_data": "rows hold personal data",
}


def single_row_observations(tables: list[RowTable], no_tokenizer: str | None, limit: str) -> Iterator[Observation]:
    """What was found in the rows of all files. `no_tokenizer` says why there is none, `limit` where rows are cut."""
    yield _unreadable(tables)
    total = sum(map(len, tables))
    kinds = sum((table.kinds for table in tables), Counter[str]())
    for check in ROW_CHECKS:
        if no_tokenizer and check.startswith("truncated"):
            yield Observation(check, not_run=no_tokenizer)
            continue
        found = [np.flatnonzero(flagged(table.flags, check)) for table in tables]
        labels = (table.label(int(row)) for table, rows in zip(tables, found, strict=True) for row in rows)
        listed = [
            f"{kind.partition('/')[2]}: {rows:,}" for kind, rows in sorted(kinds.items()) if kind.startswith(check)
        ]
        what = _WHAT[check].format(limit=limit) + (f" ({', '.join(listed)})" if listed else "")
        yield of_rows(check, sum(map(len, found)), total, labels, what)


def _unreadable(tables: list[RowTable]) -> Observation:
    """Rows of which the file's number of lines is made up too."""
    problems = [table.problems for table in tables]
    rows = sum(problem.rows for problem in problems)
    total = sum(map(len, tables)) + rows
    first = next((f", which stops training; the first is {problem.first}" for problem in problems if problem.first), "")
    lines = (line for problem in problems for line in problem.lines)
    seen = of_rows("unreadable_rows", rows, total, lines, "rows are unreadable")
    return replace(seen, message=seen.message + first)
