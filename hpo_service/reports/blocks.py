"""What a report is made of, before it is HTML or Markdown. All texts are plain and escaped by whoever writes them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hpo_service.formatting.html import Markup
from hpo_service.formatting.values import Cell

Tone = Literal["plain", "lead", "soft", "warning"]


@dataclass(frozen=True)
class Paragraph:
    """Sentences. A `lead` is what a hurried reader takes away."""

    text: str
    tone: Tone = "plain"


@dataclass(frozen=True)
class Command:
    """What to type, and after which words."""

    before: str
    command: str


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows under columns. Without columns the first cell of each row is its name."""

    columns: Sequence[str] = ()
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A text as it is, such as a file; `folded` if it is only looked at when wanted."""

    title: str
    text: str
    folded: bool = True


@dataclass(frozen=True, kw_only=True)
class Key:
    """An entry of a plot's legend: the class of its marks and what they mean."""

    mark: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A plot. `caption` explains what is drawn, `about` says what its numbers are.

    `figures` are these numbers as far as they can be read as a table.
    """

    title: str
    plot: Markup
    caption: str = ""
    about: str = ""
    legend: Sequence[Key] = ()
    figures: Table | None = None
    wide: bool = False

    def words(self) -> str:
        """All that is said below it."""
        return " ".join(filter(None, (self.about, self.caption)))


Block = Paragraph | Command | Table | Listing | Figure


@dataclass(frozen=True, kw_only=True)
class Section:
    """Blocks under a heading."""

    title: str
    blocks: Sequence[Block]
