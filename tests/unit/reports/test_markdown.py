"""The same report as Markdown, read by a parser of Markdown."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from hpo_service.reports import render_markdown
from hpo_service.reports.markdown import code, escaped
from tests.reported import HOSTILE, study_report, trial
from tests.unit.reports.test_html import HEADINGS, IMPORTANCES, hostile


def tokens(text: str) -> Iterator[Token]:
    """With those within lines."""
    for token in MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(text):
        yield token
        yield from token.children or ()


def test_it_has_the_sections_of_the_page() -> None:
    found = list(tokens(render_markdown(study_report())))
    inline = [found[place + 1].content for place, token in enumerate(found) if token.type == "heading_open"]
    assert [heading for heading in HEADINGS if heading not in inline] == []
    assert sum(token.type == "table_open" for token in found) >= 8


def test_what_is_drawn_is_listed_and_no_caption_speaks_of_dots() -> None:
    text = render_markdown(study_report(importances=IMPORTANCES))
    assert "PED-ANOVA over the last losses of 9 trials (all with a loss: complete, pruned and paused ones)" in text
    assert "Not explored, because all trials had the same value: lora\\_r." in text
    assert "| learning\\_rate | trials | lowest last loss | median |" in text
    assert "| 0.001 | 1 | 1.8000 | 1.8000 |" in text
    assert "Parallel coordinates" not in text
    assert "ollow" not in text


def test_many_values_are_listed_by_quarters() -> None:
    trials = [trial(number, "complete", 3.0, 2.0 + number, learning_rate=1e-4 * (number + 1)) for number in range(9)]
    text = render_markdown(study_report(trials=trials))
    assert "| 0.0001 to 0.0002 | 2 | 2.0000 | 2.5000 |" in text
    assert "| 0.0007 to 0.0009 | 3 | 8.0000 | 9.0000 |" in text


def test_what_a_worker_ran_at_the_same_time_counts_once() -> None:
    whole = study_report().timeline[0]
    early, late = replace(whole, seconds=960.0), replace(whole, began=whole.began + timedelta(minutes=4))
    text = render_markdown(study_report(timeline=[early, late]))
    assert "| w0 on n0 | 4 | 0 | 8 min | 100% |" in text


def test_hostile_names_are_text() -> None:
    found = list(tokens(render_markdown(study_report(**hostile()))))
    kinds = {token.type for token in found}
    assert not kinds & {"html_block", "html_inline", "link_open", "image", "s_open"}
    words = " ".join(HOSTILE.split())
    text = "".join(token.content for token in found if token.type in ("text", "text_special", "code_inline"))
    assert text.count(words) >= 12


@pytest.mark.parametrize(
    "line",
    ["# heading", "- item", "+ item", "1. item", "2) item", "3.", "-", "- - -", "-0.5", "4.25", "> quote", "===",
     "---", "a | b", "*b*", "_b_", "`c`",
     "~~s~~", "a &lt; b", "<b>", "[a](b)", "\\*", "a\n# b", "    code", "```"],
)  # fmt: skip
def test_escaped_lines_are_read_as_they_were(line: str) -> None:
    found = list(tokens(escaped(line)))
    assert [token.type for token in found[:3]] == ["paragraph_open", "inline", "text"]
    assert "".join(token.content for token in found if token.type.startswith("text")) == " ".join(line.split())


def test_numbers_stay_as_they_are() -> None:
    assert [escaped(number) for number in ("4.2522", "-0.25 ± 0.05", "+1")] == ["4.2522", "-0.25 ± 0.05", "+1"]


@pytest.mark.parametrize("command", ["hpo study extend a", "a ` b", "`` a ``", "a\nb"])
def test_code_in_a_line_is_read_as_it_was(command: str) -> None:
    found = [token for token in tokens(code(command)) if token.type == "code_inline"]
    assert [token.content for token in found] == [" ".join(command.split())]
