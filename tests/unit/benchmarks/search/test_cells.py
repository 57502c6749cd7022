"""What is computed once and found again."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.search.cells import Cell, Row, Shelf, cell_from, row_from, to_line

CELL = Cell(strategy="asha", task="line", workers=4, seed=0, budget=50, digest="abc")


def row(**changes: object) -> Row:
    made = Row(
        strategy="asha",
        task="line",
        workers=4,
        seed=0,
        budget=50,
        digest="abc",
        bill=49.5,
        trials=7,
        wall_seconds=0.5,
        decision_p95_ms=3.2,
        history=((1.0, 0.5), (2.0, 0.25)),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def test_lines_are_read_as_they_were_written() -> None:
    assert cell_from(to_line(CELL)) == CELL
    assert row_from(to_line(row())) == row()


def test_a_row_is_found_by_another_process(tmp_path: Path) -> None:
    Shelf(tmp_path, "asha").add(row())
    assert Shelf(tmp_path, "asha").find(CELL) == row()
    assert Shelf(tmp_path, "median").find(CELL) is None


@pytest.mark.parametrize(
    "changes", [{"digest": "new"}, {"seed": 1}, {"task": "other"}, {"workers": 16}, {"budget": 51}]
)
def test_another_run_is_not_answered(tmp_path: Path, changes: dict[str, object]) -> None:
    shelf = Shelf(tmp_path, "asha")
    shelf.add(row())
    assert shelf.find(replace(CELL, **changes)) is None  # type: ignore[arg-type]


def test_a_smaller_budget_is_answered_by_a_longer_run(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, "asha")
    shelf.add(row())
    assert shelf.find(replace(CELL, budget=32)) == row()


def test_new_code_replaces_the_row(tmp_path: Path) -> None:
    shelf, new = Shelf(tmp_path, "asha"), row(digest="new", bill=1.0)
    shelf.add(row())
    shelf.add(new)
    again = Shelf(tmp_path, "asha")
    assert list(again.rows.values()) == [new]
    again.tidy()
    assert (tmp_path / "asha.jsonl").read_text() == to_line(new) + "\n"


def test_equal_rows_make_equal_files(tmp_path: Path) -> None:
    rows = [row(seed=seed) for seed in range(3)]
    for folder, order in (("a", rows), ("b", rows[::-1])):
        shelf = Shelf(tmp_path / folder, "asha")
        shelf.extend(order)
        shelf.tidy()
    assert (tmp_path / "a" / "asha.jsonl").read_text() == (tmp_path / "b" / "asha.jsonl").read_text()


def test_the_loss_for_a_bill_is_the_last_improvement() -> None:
    assert [row().loss_at(bill) for bill in (0.9, 1.0, 1.9, 2.0, 9.0)] == [float("inf"), 0.5, 0.5, 0.25, 0.25]
