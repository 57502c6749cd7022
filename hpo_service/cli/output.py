"""Data to stdout as a table or as JSON, talk to stderr. No colours where nobody looks."""

import json
import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from trainer.common.logs import harmless

_PIPE_WIDTH = 200


class Format(StrEnum):
    """How a command shows its data."""

    TABLE = "table"
    JSON = "json"


OutputOption = Annotated[Format, typer.Option("--output", "-o", help="How to show the data.")]


def stdout() -> Console:
    """Where data goes."""
    return Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False, markup=False, emoji=False)


def say(text: str) -> None:
    """One line for the human, on stderr."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def show_json(data: object) -> None:
    """Data for programs."""
    sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def show_table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str | None = None) -> None:
    """Data for humans."""
    stdout().print(make_table(columns, rows, title))


def make_table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str | None = None) -> Table:
    """A table without lines."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(text(value) for value in row))
    return table


def text(value: object) -> str:
    """A cell: nothing for None, at most five digits for numbers that are not whole; it cannot steer a terminal."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, dict):
        return " ".join(f"{text(key)}={text(item)}" for key, item in value.items())
    return harmless(str(value))


def show_record(record: dict[str, Any]) -> None:
    """One object, a line a field."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in record.items():
        table.add_row(name, text(value))
    stdout().print(table)
