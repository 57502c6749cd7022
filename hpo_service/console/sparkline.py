"""How the lowest loss fell, as small as a word."""

from hpo_service.formatting.html import Markup, tag
from hpo_service.reports.plots.svg import number
from hpo_service.storage.queries.overview import Lowest

_WIDTH, _HEIGHT, _EDGE = 112.0, 26.0, 3.0


def sparkline(lowest: Lowest) -> Markup | None:
    """From left to right all losses that were told, however high; None before the first."""
    if not lowest.steps:
        return None
    first, last = lowest.steps[0][1], lowest.steps[-1][1]
    span = max(lowest.told - 1, 1)
    places = [(_across((told - 1) / span), _down(loss, first, last)) for told, loss in lowest.steps]
    x, y = places[0]
    path = f"M{number(x)} {number(y)}"
    for x, y in places[1:]:
        path += f"H{number(x)}V{number(y)}"
    end = _across(1.0) if lowest.told > 1 else places[-1][0]
    about = f"lowest loss at any rung: from {first:.4g} to {last:.4g} over {lowest.told:,} losses"
    return tag(
        "svg",
        tag("title", about),
        tag("path", d=f"{path}H{number(end)}"),
        tag("circle", cx=number(end), cy=number(y), r="2.2"),
        viewBox=f"0 0 {number(_WIDTH)} {number(_HEIGHT)}",
        role="img",
        class_="spark",
    )


def _across(share: float) -> float:
    return _EDGE + (_WIDTH - 2 * _EDGE) * share


def _down(loss: float, first: float, last: float) -> float:
    share = (first - loss) / (first - last) if first > last else 1.0
    return _EDGE + (_HEIGHT - 2 * _EDGE) * share
