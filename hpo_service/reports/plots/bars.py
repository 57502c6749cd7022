"""Importances as bars."""

from hpo_service.formatting.html import Markup
from hpo_service.formatting.values import value_text
from hpo_service.reports.blocks import Figure, Table
from hpo_service.reports.plots.svg import clipped, label, picture, rectangle
from hpo_service.services.insights.schemas import ImportancesDocument

_WIDTH, _ROW, _LEFT, _RIGHT = 460, 26, 158, 412
_BAR = 15
_MOST = 12
_LONGEST = 22


def counted(found: ImportancesDocument) -> str:
    """Which trials and which of their losses count."""
    return (
        f"the last losses of {found.trials:,} trials (all with a loss: complete, pruned and paused ones), with the "
        "curve of a middling trial taken off so that rungs compare"
    )


def by_chance(found: ImportancesDocument) -> str:
    """A sentence on the parameters whose shares chance explains, with a blank before it; empty if there are none."""
    unsure = [entry.parameter for entry in found.importances if not entry.beyond_chance]
    if not unsure:
        return ""
    if len(unsure) == len(found.importances):
        return f" {found.trials:,} trials are too few to tell any of these shares from chance."
    return f" Not told apart from chance: {', '.join(unsure)}."


def not_explored(found: ImportancesDocument) -> str:
    """A sentence on the parameters that never varied, with a blank before it; empty if all did."""
    if not found.unexplored:
        return ""
    return f" Not explored, because all trials had the same value: {', '.join(found.unexplored)}."


def importance_bars(found: ImportancesDocument) -> Figure | None:
    """None before enough trials have a loss."""
    shown = found.importances[:_MOST]
    if not shown:
        return None
    longest = max(entry.share for entry in shown) or 1.0
    marks: list[Markup] = []
    for place, entry in enumerate(shown):
        y = place * _ROW + 4
        width = (_RIGHT - _LEFT) * entry.share / longest
        text = f"{entry.share:.0%}" + ("" if entry.beyond_chance else " ?")
        marks += [
            label(_LEFT - 8, y + 12, clipped(entry.parameter, _LONGEST), anchor="end", kind=""),
            rectangle(_LEFT, y, max(width, 1), _BAR, "best", f"{entry.parameter}: {text}"),
            label(_LEFT + width + 6, y + 12, text, anchor="start"),
        ]
    return Figure(
        title="Which parameters mattered",
        about=f"PED-ANOVA over {counted(found)}.{by_chance(found)}{not_explored(found)}",
        plot=picture("Importances", *marks, width=_WIDTH, height=len(shown) * _ROW + 6),
        figures=Table(
            columns=("parameter", "importance", "beyond chance", "best trial has"),
            rows=[
                (
                    entry.parameter,
                    f"{entry.share:.1%}",
                    "yes" if entry.beyond_chance else "not shown",
                    value_text(entry.best),
                )
                for entry in found.importances
            ],
        ),
    )
