"""What all pages of the console share: the frame around them, tables that fold on small screens, moments, meters."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from hpo_service.auth.principals import Scope
from hpo_service.console.buttons import button
from hpo_service.formatting.html import Child, Markup, join, tag

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; img-src data:; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
_PLACES = (
    ("/", "Studies"),
    ("/workers", "Workers"),
    ("/promotions", "Promotions"),
    ("/dashboard", "Dashboard"),
    ("/docs", "API"),
)


@dataclass(frozen=True, kw_only=True)
class Viewer:
    """For whom a page is made. Nobody is shown a button that their key may not use."""

    scopes: frozenset[str]

    def may(self, scope: Scope) -> bool:
        """Whether the key has the scope."""
        return scope in self.scopes


@dataclass(frozen=True, kw_only=True)
class Assets:
    """Addresses of the script and the style sheet; they change with their content."""

    script: str
    style: str


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table. `number` aligns its cells to the right, `wide` lets it take the room that is left."""

    title: str
    number: bool = False
    wide: bool = False


def console_page(title: str, here: str, assets: Assets, *body: Child) -> Markup:
    """A whole document. `here` is the address of the place in the navigation that it belongs to."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{title} · hpo"),
        tag("link", rel="icon", href="data:,"),
        tag("link", rel="stylesheet", href=assets.style),
        tag("script", src=assets.script, defer=""),
    )
    content = tag("main", *body, id="content", tabindex="-1")
    parts = (tag("a", "Skip to the content", class_="skip", href="#content"), _bar(here), content, _confirm())
    return Markup("<!doctype html>\n" + tag("html", head, tag("body", *parts), lang="en"))


def live(identifier: str, *content: Child, element: str = "section", class_: str = "") -> Markup:
    """A part of a page that the script fetches again and replaces when something has changed."""
    return tag(element, *content, id=identifier, data_live="", class_=class_)


def panel(identifier: str, title: str, *content: Child, aside: Child = None, class_: str = "") -> Markup:
    """A live part under a heading; `aside` stands beside it. Of class `gone` it is not shown."""
    heading = tag("header", tag("h2", title, id=f"{identifier}-title"), tag("span", aside, class_="aside"))
    return tag(
        "section",
        heading,
        *content,
        id=identifier,
        data_live="",
        class_=f"panel {class_}".rstrip(),
        aria_labelledby=f"{identifier}-title",
    )


def table(columns: Sequence[Column], rows: Sequence[Sequence[Child]], *, name: str) -> Markup:
    """A table; on a small screen each row is a block of named lines. Cells that are None are left out there."""
    heads = [tag("th", column.title, scope="col", class_=_kind(column)) for column in columns]
    body = [tag("tr", *(_cell(*pair) for pair in zip(columns, row, strict=True))) for row in rows]
    parts = (tag("thead", tag("tr", *heads)), tag("tbody", *body))
    return tag("div", tag("table", *parts, aria_label=name), class_="scroll")


def facts(pairs: Sequence[tuple[str, Child]]) -> Markup:
    """Names with what is known of them; what is None is left out."""
    known = [tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs if value is not None]
    return tag("dl", *known, class_="facts")


def stacked(first: Child, second: Child) -> Markup:
    """A line with a smaller one below it."""
    below = tag("div", second, class_="soft") if second else None
    return join(first, below)


def chip(state: str, text: str | None = None) -> Markup:
    """A state."""
    return tag("span", text or state, class_=f"chip {state}")


def moment(when: datetime) -> Markup:
    """A point in time; the script says how long ago it was, in the reader's time zone on hovering."""
    return tag("time", f"{when:%Y-%m-%d %H:%M} UTC", datetime=when.isoformat())


def meter(share: float, about: str, *, expected: float | None = None) -> Markup:
    """A bar that is filled to `share`, and more lightly to what is `expected`. `about` is read aloud."""
    marks = [tag("i", style=f"width: {_percent(share)}")]
    if expected is not None:
        marks.insert(0, tag("i", style=f"width: {_percent(expected)}", class_="expected"))
    return tag("div", *marks, class_="meter", role="img", aria_label=about, title=about)


def menu(identifier: str, title: str, links: Sequence[tuple[str, str]]) -> Markup:
    """Links that unfold, each a name and an address."""
    items = [tag("li", tag("a", name, href=address)) for name, address in links]
    return tag("details", tag("summary", title), tag("ul", *items), class_="menu", id=identifier)


def empty(*words: Child) -> Markup:
    """What stands where there is nothing to show."""
    return tag("p", *words, class_="empty")


def _bar(here: str) -> Markup:
    links = [
        tag("a", title, href=address, **({"aria_current": "page"} if address == here else {}))
        for address, title in _PLACES
    ]
    connection = tag("span", tag("i"), tag("span", "connecting"), id="connection", class_="connection", role="status")
    news = tag("div", id="news", class_="unseen", role="status", aria_live="polite")
    name = tag("a", "hpo", href="/", class_="name", aria_label="hpo, all studies")
    leave = button("log-out", "Log out", "/v1/logout", done="Logged out.", go_to="/")
    return tag("header", name, tag("nav", *links, aria_label="Main"), connection, leave, news, class_="bar")


def _confirm() -> Markup:
    """Asked before what cannot be taken back; the script fills in the words."""
    buttons = tag(
        "div",
        tag("button", "Go back", type="button", data_close=""),
        tag("button", "Yes", type="button", id="confirm-yes", class_="danger"),
        class_="buttons",
    )
    question = tag("p", id="confirm-question")
    return tag(
        "dialog", tag("h2", "Are you sure?"), question, buttons, id="confirm", aria_labelledby="confirm-question"
    )


def _cell(column: Column, value: Child) -> Markup:
    if value is None or value == "":
        return tag("td", class_=f"{_kind(column)} none".strip(), data_column=column.title)
    return tag("td", tag("div", value), class_=_kind(column), data_column=column.title)


def _kind(column: Column) -> str:
    return " ".join(name for name, on in (("number", column.number), ("wide", column.wide)) if on)


def _percent(share: float) -> str:
    return f"{100 * min(max(share, 0.0), 1.0):.1f}%"
