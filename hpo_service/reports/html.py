"""A report as one HTML page. It loads nothing and runs nothing, wherever it is kept."""

from collections.abc import Sequence

from hpo_service.formatting.html import Markup, page, tag
from hpo_service.formatting.values import cell
from hpo_service.reports.blocks import Block, Command, Figure, Listing, Paragraph, Section, Table
from hpo_service.reports.looks import STYLE

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def html(study: str, sections: Sequence[Section]) -> Markup:
    """The page."""
    return page(
        f"Report on study {study}",
        tag("h1", "Report on study ", study),
        *(_section(section) for section in sections),
        policy=_POLICY,
        style=STYLE,
    )


def _section(section: Section) -> Markup:
    """Figures that follow each other stand side by side where there is room."""
    parts: list[Markup] = []
    figures: list[Markup] = []
    for block in section.blocks:
        if isinstance(block, Figure) and not block.wide:
            figures.append(_figure(block))
            continue
        if figures:
            parts.append(tag("div", *figures, class_="figures"))
            figures = []
        parts.append(_block(block))
    if figures:
        parts.append(tag("div", *figures, class_="figures"))
    return tag("section", tag("h2", section.title), *parts)


def _block(block: Block) -> Markup:
    match block:
        case Paragraph(text, tone):
            return tag("p", text, class_=tone)
        case Command(before, command):
            return tag("p", before, " ", tag("code", command), class_="plain")
        case Table():
            return tag("div", _table(block), class_="scroll")
        case Listing():
            opened = {} if block.folded else {"open": ""}
            text = tag("pre", tag("code", block.text), tabindex="0")
            return tag("details", tag("summary", block.title), text, **opened)
        case Figure():
            return _figure(block)


def _table(table: Table) -> Markup:
    head = tag("thead", tag("tr", *(tag("th", column, scope="col") for column in table.columns)))
    rows = [tag("tr", *(_cell(value, place, table) for place, value in enumerate(row))) for row in table.rows]
    return tag("table", head if table.columns else None, tag("tbody", *rows))


def _cell(value: str | int | float | None, place: int, table: Table) -> Markup:
    if place == 0 and not table.columns:
        return tag("th", cell(value), scope="row")
    return tag("td", cell(value))


def _figure(figure: Figure) -> Markup:
    keys = [tag("span", tag("i", class_=key.mark), key.text) for key in figure.legend]
    return tag(
        "figure",
        tag("h3", figure.title),
        tag("div", figure.plot, class_="plot", tabindex="0"),
        tag("div", *keys, class_="legend") if keys else None,
        tag("figcaption", figure.words()),
        class_="wide" if figure.wide else "",
    )
