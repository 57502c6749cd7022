"""What all pages share."""

from datetime import UTC, datetime

from hpo_service.console.buttons import Field, button, dialog
from hpo_service.console.frame import Assets, Column, console_page, facts, meter, moment, panel, table
from tests.reported import HOSTILE, Page

ASSETS = Assets(script="/s.js", style="/s.css")


def test_a_page_runs_one_script_and_is_well_formed() -> None:
    page = Page(console_page(HOSTILE, "/workers", ASSETS, panel("p", HOSTILE, HOSTILE, aside=HOSTILE)))
    assert page.elements.count("script") == 1
    assert [value for name, value in page.attributes if name == "src"] == ["/s.js"]
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert HOSTILE in page.text
    assert ("aria-current", "page") in page.attributes
    assert ("href", "/dashboard") in page.attributes


def test_a_table_names_its_cells_for_small_screens() -> None:
    columns = (Column(title="Trial"), Column(title="Loss", number=True))
    page = Page(table(columns, [["trial 1", "2.5"], ["trial 2", None]], name="Trials"))
    assert page.attributes.count(("data-column", "Loss")) == 2
    assert page.attributes.count(("class", "number none")) == 1


def test_facts_that_are_not_known_are_left_out() -> None:
    assert Page(facts([("MFU", None), ("Speed", "9 tok/s")])).text == "Speed9 tok/s"


def test_meters_stay_inside_and_say_what_they_show() -> None:
    page = Page(meter(1.7, "17 of 10", expected=-1.0))
    assert [value for name, value in page.attributes if name == "style"] == ["width: 0.0%", "width: 100.0%"]
    assert ("aria-label", "17 of 10") in page.attributes


def test_a_moment_is_whole_without_the_script() -> None:
    page = Page(moment(datetime(2026, 11, 25, 10, 5, tzinfo=UTC)))
    assert page.text == "2026-11-25 10:05 UTC"
    assert ("datetime", "2026-11-25T10:05:00+00:00") in page.attributes


def test_buttons_and_fields_keep_hostile_words_in_attributes() -> None:
    made = Page(button("b", HOSTILE, f"/v1/{HOSTILE}", done=HOSTILE, confirm=HOSTILE))
    assert ("data-confirm", HOSTILE) in made.attributes
    assert made.elements == ["button"]
    fields = [Field(path=HOSTILE, title=HOSTILE, value=HOSTILE, hint=HOSTILE, choices=[HOSTILE])]
    asked = Page(dialog("d", HOSTILE, fields, "/x", submit=HOSTILE, done=HOSTILE))
    assert "script" not in asked.elements
    assert asked.attributes.count(("selected", "")) == 1
