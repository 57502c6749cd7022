"""The parts that all plots share: the picture, its axes, lines and dots."""

from collections.abc import Sequence
from dataclasses import dataclass

from hpo_service.formatting.html import Child, Markup, tag
from hpo_service.reports.plots.scales import Scale, short

WIDTH, HEIGHT = 460, 290
LEFT, RIGHT, TOP, BOTTOM = 54, 440, 22, 246
_TICK_GAP = 7
_NAMESPACE = "http://www.w3.org/2000/svg"


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A scale with what it measures."""

    scale: Scale
    title: str


def picture(title: str, *marks: Child, width: float = WIDTH, height: float = HEIGHT) -> Markup:
    """The whole plot, as wide as its place; `title` is read aloud and shown on hovering."""
    box = f"0 0 {number(width)} {number(height)}"
    own = f"--width: {number(width)}px"
    return tag("svg", tag("title", title), *marks, viewBox=box, role="img", style=own, xmlns=_NAMESPACE)


def framed(title: str, x: Axis, y: Axis, *marks: Child) -> Markup:
    """Marks before a grid, with both axes."""
    return picture(title, *_horizontal(x), *vertical(y), *marks)


def polyline(points: Sequence[tuple[float, float]], kind: str, about: str) -> Markup:
    """A line through the points; a single point would not be seen and is left to its dot."""
    path = "".join(f"{'L' if place else 'M'}{number(x)} {number(y)}" for place, (x, y) in enumerate(points))
    return tag("path", tag("title", about), d=path, class_=f"line {kind}")


def dot(x: float, y: float, kind: str, about: str, radius: float = 3.5) -> Markup:
    """A point of a scatter plot."""
    return tag("circle", tag("title", about), cx=number(x), cy=number(y), r=number(radius), class_=f"dot {kind}")


def label(x: float, y: float, text: str, *, anchor: str = "middle", kind: str = "tick") -> Markup:
    """A piece of text; `anchor` is start, middle or end."""
    return tag("text", text, x=number(x), y=number(y), text_anchor=anchor, class_=kind)


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    """A straight line."""
    return tag("line", x1=number(x1), y1=number(y1), x2=number(x2), y2=number(y2), class_=kind)


def rectangle(x: float, y: float, width: float, height: float, kind: str, about: str) -> Markup:
    """A bar."""
    return tag(
        "rect",
        tag("title", about),
        x=number(x), y=number(y), width=number(max(width, 0.0)), height=number(height), class_=f"bar {kind}",
    )  # fmt: skip


def number(value: float) -> str:
    """A coordinate; a tenth of a pixel is enough."""
    return f"{value:.1f}".removesuffix(".0")


def clipped(text: str, most: int) -> str:
    """Text of at most so many characters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _horizontal(axis: Axis) -> list[Markup]:
    scale = axis.scale
    marks = [line(LEFT, BOTTOM, RIGHT, BOTTOM, "axis")]
    for tick in scale.ticks():
        place = scale(tick)
        marks += [line(place, TOP, place, BOTTOM, "grid"), label(place, BOTTOM + 17, short(tick))]
    return [*marks, label((LEFT + RIGHT) / 2, BOTTOM + 38, axis.title, kind="note")]


def vertical(axis: Axis) -> list[Markup]:
    """The y axis with its grid."""
    scale = axis.scale
    marks = []
    for tick in scale.ticks():
        place = scale(tick)
        text = label(LEFT - _TICK_GAP, place + 4, short(tick), anchor="end")
        marks += [line(LEFT, place, RIGHT, place, "grid"), text]
    return [*marks, label(0, 12, axis.title, anchor="start", kind="note")]
