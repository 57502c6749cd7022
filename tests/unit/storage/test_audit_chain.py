"""The chain of the audit log: it holds, and whatever is done to a row afterwards is found, with the row's number."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from hpo_service.storage.audit_chain import BEGINNING, NO_ROWS, Head, Link, check

Row = tuple[Link, str]
AT = datetime(2026, 11, 26, 12, tzinfo=UTC)


def chain(length: int) -> list[Row]:
    """Rows as they are written."""
    rows: list[Row] = []
    for number in range(1, length + 1):
        link = Link(
            project_id=1,
            number=number,
            at=AT + timedelta(seconds=number),
            who="hpo_key_1",
            key_id=1,
            action="pause_study",
            object=f"studies/{number}",
            outcome="done",
            status=202,
            request_id="r",
            client="127.0.0.1",
            details="{}",
            previous=rows[-1][1] if rows else BEGINNING,
        )
        rows.append((link, link.hash()))
    return rows


def head_of(rows: Sequence[Row]) -> Head:
    return Head(rows[-1][0].number, rows[-1][1]) if rows else NO_ROWS


ROWS = chain(6)
CHANGES = {
    "project_id": 2,
    "number": 9,
    "at": AT,
    "who": "hpo_key_2",
    "key_id": None,
    "action": "stop_study",
    "object": "studies/other",
    "outcome": "refused",
    "status": 403,
    "request_id": None,
    "client": "::1",
    "details": '{"a":1}',
    "previous": "f" * 64,
}


def test_a_chain_holds() -> None:
    for length in (0, 1, 6):
        rows = chain(length)
        verdict = check(rows, head_of(rows))
        assert (verdict.broken, verdict.why, verdict.head) == (None, "", head_of(rows))


@pytest.mark.parametrize(("name", "value"), CHANGES.items())
def test_every_field_is_in_the_hash(name: str, value: object) -> None:
    link = ROWS[2][0]
    changed = replace(link, **{name: value})  # type: ignore[arg-type]
    assert changed.hash() != link.hash()
    verdict = check([*ROWS[:2], (changed, ROWS[2][1]), *ROWS[3:]], head_of(ROWS))
    assert verdict.broken == 3
    assert verdict.head == head_of(ROWS[:2])


def test_no_field_is_left_out_of_this_test() -> None:
    assert set(CHANGES) == set(Link.__dataclass_fields__)


def test_the_time_zone_of_who_reads_does_not_matter() -> None:
    link = ROWS[0][0]
    assert replace(link, at=link.at.astimezone(timezone(timedelta(hours=5, minutes=30)))).hash() == link.hash()


def swapped(rows: list[Row]) -> list[Row]:
    """Two rows change places and take each other's number."""
    (first, one), (second, two) = rows[2], rows[3]
    return [*rows[:2], (replace(second, number=3), two), (replace(first, number=4), one), *rows[4:]]


DAMAGES: dict[str, tuple[Callable[[list[Row]], list[Row]], int, str]] = {
    "the first is gone": (lambda rows: rows[1:], 1, "row 1 is missing"),
    "one in the middle is gone": (lambda rows: rows[:2] + rows[3:], 3, "row 3 is missing"),
    "the last ones are gone": (lambda rows: rows[:4], 5, "rows 5 to 6 are missing"),
    "all are gone": (lambda rows: [], 1, "rows 1 to 6 are missing"),
    "two changed places": (swapped, 3, "does not follow row 2"),
    "one is there twice": (lambda rows: [*rows[:3], rows[2], *rows[3:]], 3, "row 4 is missing"),
    "a hash was changed": (lambda rows: [*rows[:5], (rows[5][0], "e" * 64)], 6, "its hash is another one"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found(damage: str) -> None:
    change, broken, why = DAMAGES[damage]
    verdict = check(change(list(ROWS)), head_of(ROWS))
    assert verdict.broken == broken
    assert why in verdict.why


def test_a_row_that_the_end_does_not_know() -> None:
    verdict = check(ROWS, head_of(ROWS[:5]))
    assert (verdict.broken, verdict.why) == (6, "it is not the row that the chain is known to end with")


def test_a_chain_that_was_written_anew_differs_from_what_was_written_down() -> None:
    """Who may write everything can make a whole new chain, which only a row kept elsewhere gives away."""
    known = head_of(ROWS[:4])
    assert check(ROWS, head_of(ROWS), known).broken is None
    forged: list[Row] = []
    for link, _ in ROWS:
        new = replace(link, who="hpo_key_9", previous=forged[-1][1] if forged else BEGINNING)
        forged.append((new, new.hash()))
    assert check(forged, head_of(forged)).broken is None
    verdict = check(forged, head_of(forged), known)
    assert verdict.broken == 4
    assert "another hash than the one that was written down" in verdict.why
    shortened = ROWS[:3]
    verdict = check(shortened, head_of(shortened), known)
    assert (verdict.broken, verdict.why) == (4, "rows 4 to 4 are missing")
