"""How the search went: plots of trials and parameters."""

from hpo_service.reports.blocks import Block, Command, Figure, Paragraph, Section
from hpo_service.reports.plots.bars import importance_bars
from hpo_service.reports.plots.curves import learning_curves
from hpo_service.reports.plots.history import history
from hpo_service.reports.plots.parallel import parallel_coordinates
from hpo_service.reports.plots.slices import parameter_slices
from hpo_service.services.reports.facts import StudyReport


def search(report: StudyReport) -> Section:
    """Plots as far as there is something to see."""
    slices = parameter_slices(report)
    blocks: list[Block] = [*_plots(report)]
    if slices:
        words = "The last loss of each trial over one parameter, whatever the others were:"
        blocks += [Paragraph(words, "soft"), *slices]
    if not blocks:
        blocks.append(Paragraph("No trial has reached a rung.", "soft"))
    blocks.append(Command("Every decision with the numbers behind it:", f"hpo study explain {report.study.name}"))
    return Section(title="Search", blocks=blocks)


def _plots(report: StudyReport) -> list[Block]:
    found = report.importances
    bars = importance_bars(found)
    plots: list[Figure | None] = [learning_curves(report), history(report), bars, parallel_coordinates(report)]
    blocks: list[Block] = [plot for plot in plots if plot is not None]
    if blocks and bars is None:
        text = (
            f"Which parameters mattered cannot be said: {found.trials} trials have a loss, {found.needed} are needed."
        )
        blocks.append(Paragraph(text, "soft"))
    return blocks
