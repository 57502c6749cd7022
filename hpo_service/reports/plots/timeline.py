"""When which worker ran what."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime

from hpo_service.formatting.html import Markup
from hpo_service.formatting.values import duration, moment
from hpo_service.reports.blocks import Figure, Key, Table
from hpo_service.reports.plots.scales import Scale, short
from hpo_service.reports.plots.svg import clipped, label, line, picture, rectangle
from hpo_service.storage.queries.reports import Stretch

_WIDTH, _LEFT, _RIGHT, _TOP, _ROW, _BAR = 900, 170, 885, 6, 24, 15
_MOST_LANES = 40
_LONGEST = 24
_MARKS = {
    "done": Key(mark="done", text="done"),
    "preempted": Key(mark="stop", text="stopped on request"),
    "failed": Key(mark="bad", text="lost or failed"),
    "running": Key(mark="run", text="running"),
}
_UNITS = ((1.0, "seconds"), (60.0, "minutes"), (3600.0, "hours"), (86400.0, "days"))
_FEWEST_UNITS = 3.0


def timeline(stretches: Sequence[Stretch]) -> Figure | None:
    """None before a worker had a slice of the study. The workers that were used longest are shown."""
    if not stretches:
        return None
    lanes = defaultdict[tuple[str, str], list[Stretch]](list)
    for stretch in stretches:
        lanes[stretch.worker, stretch.node].append(stretch)
    busiest = sorted(lanes, key=lambda lane: -sum(stretch.seconds for stretch in lanes[lane]))[:_MOST_LANES]
    shown = sorted(busiest)
    start, end = min(one.began for one in stretches), max(one.ended for one in stretches)
    length_seconds = (end - start).total_seconds()
    unit, name = next((pair for pair in reversed(_UNITS) if length_seconds >= _FEWEST_UNITS * pair[0]), _UNITS[0])
    scale = Scale(low=0.0, high=length_seconds / unit or 1.0, start=_LEFT, end=_RIGHT)
    bottom = _TOP + _ROW * len(shown)
    marks = _grid(scale, bottom, f"{name} since {moment(start)}")
    for place, lane in enumerate(shown):
        marks += _lane(lane, lanes[lane], _TOP + _ROW * place, scale, (start, unit))
    left = f" {len(shown)} of {len(lanes)} workers are shown." if len(lanes) > len(shown) else ""
    kinds = {stretch.kind for lane in shown for stretch in lanes[lane]}
    return Figure(
        title="Timeline of workers",
        caption=f"Slices that began close together are one bar.{left}",
        plot=picture("What workers ran", *marks, width=_WIDTH, height=bottom + 42),
        legend=[key for kind, key in _MARKS.items() if kind in kinds],
        figures=_listed({lane: lanes[lane] for lane in shown}, length_seconds),
        wide=True,
    )


def _grid(scale: Scale, bottom: float, title: str) -> list[Markup]:
    marks = [line(_LEFT, bottom, _RIGHT, bottom, "axis")]
    for tick in scale.ticks(8):
        place = scale(tick)
        marks += [line(place, _TOP, place, bottom, "grid"), label(place, bottom + 16, short(tick))]
    return [*marks, label((_LEFT + _RIGHT) / 2, bottom + 35, title, kind="note")]


def _lane(
    lane: tuple[str, str], stretches: Sequence[Stretch], y: float, scale: Scale, origin: tuple[datetime, float]
) -> list[Markup]:
    start, unit = origin
    marks = [label(_LEFT - 8, y + 16, clipped(_name(lane), _LONGEST), anchor="end", kind="")]
    for one in stretches:
        left, right = (scale((when - start).total_seconds() / unit) for when in (one.began, one.ended))
        key = _MARKS[one.kind]
        words = f"{one.attempts} x {key.text}, {duration(one.seconds)}"
        marks.append(rectangle(left, y + 4, max(right - left, 1), _BAR, key.mark, words))
    return marks


def _listed(lanes: dict[tuple[str, str], list[Stretch]], length_seconds: float) -> Table:
    return Table(
        columns=("worker", "slices", "lost or failed", "worked", "share of the study's time"),
        rows=[
            (
                _name(lane),
                sum(one.attempts for one in found),
                sum(one.attempts for one in found if one.kind == "failed"),
                duration(seconds := _worked_seconds(found)),
                f"{seconds / length_seconds:.0%}" if length_seconds else None,
            )
            for lane, found in lanes.items()
        ],
    )


def _worked_seconds(stretches: Sequence[Stretch]) -> float:
    """Slices that a worker ran at the same time count once."""
    covered, until = 0.0, None
    for one in sorted(stretches, key=lambda one: one.began):
        begins = one.began if until is None else max(one.began, until)
        covered += max(0.0, (one.ended - begins).total_seconds())
        until = one.ended if until is None else max(until, one.ended)
    return min(covered, sum(one.seconds for one in stretches))


def _name(lane: tuple[str, str]) -> str:
    worker, node = lane
    return f"{worker} on {node}" if node else worker
