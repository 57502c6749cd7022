"""The first page: all studies, what runs, what waits, what happened."""

from collections.abc import Sequence

from hpo_service.console.activity import events_panel, running_panel, waiting_panel
from hpo_service.console.amounts import spending
from hpo_service.console.frame import Assets, Column, chip, console_page, empty, panel, stacked, table
from hpo_service.console.sparkline import sparkline
from hpo_service.console.words import percent, study_link
from hpo_service.formatting.html import Child, Markup, join, tag
from hpo_service.formatting.values import plural
from hpo_service.services.studies.schemas import BestDocument, StudySummary
from hpo_service.services.views.start_page import Overview, StudyLine

_COLUMNS = (
    Column(title="Study", wide=True),
    Column(title="State"),
    Column(title="Best loss", number=True),
    Column(title="Best so far"),
    Column(title="Trials"),
    Column(title="Spent → forecast"),
    Column(title="Saved", number=True),
)


def start_page(overview: Overview, assets: Assets) -> Markup:
    """The whole page."""
    queued = [line.summary.name for line in overview.live if line.summary.state == "queued"]
    return console_page(
        "Studies",
        "/",
        assets,
        tag("h1", "Studies", class_="unseen"),
        _studies(overview),
        running_panel(overview.running, overview.workers),
        tag("div", events_panel(overview.events), waiting_panel(overview.running, queued), class_="columns"),
    )


def _studies(overview: Overview) -> Markup:
    lines = [*overview.live, *overview.ended]
    if not lines:
        command = tag("code", "hpo study create -f study.yaml --watch")
        return panel("studies", "Studies", empty("No study yet. Start one with ", command, "."))
    older = tag("p", tag("a", "Older studies", href=f"/?older={overview.older}")) if overview.older else None
    rows = [_row(line) for line in lines]
    return panel("studies", "Studies", table(_COLUMNS, rows, name="Studies"), older, aside=_count(overview.live))


def _count(live: Sequence[StudyLine]) -> str:
    running = sum(line.summary.state == "running" for line in live)
    others = len(live) - running
    return f"{running} running" + (f" · {plural(others, 'other')} not ended" if others else "")


def _row(line: StudyLine) -> list[Child]:
    study = line.summary
    return [
        stacked(study_link(study.name), note(study)),
        chip(study.state),
        _best(study.best),
        sparkline(line.lowest),
        _trials(study),
        spending(study, line.budget, line.forecast),
        _saved(study),
    ]


def note(study: StudySummary) -> str | None:
    """What is to be said of a study's state."""
    asked = f"asked for: {', '.join(study.pending)}" if study.pending else ""
    return ". ".join(filter(None, (study.message.rstrip("."), asked))) or None


def _best(best: BestDocument | None) -> Child:
    if best is None:
        return None
    words = [f"trial {best.trial_number}"]
    if best.provisional:
        words.append("provisional")
    improvement = best.improvement
    if improvement is not None and improvement.baseline_trial != best.trial_number:
        better = "better" if improvement.relative >= 0 else "worse"
        words.append(f"{abs(improvement.relative):.1%} {better} than the baseline")
    return stacked(f"{best.loss:.4f}", ", ".join(words))


def _trials(study: StudySummary) -> Child:
    counts = [(name, number) for name, number in study.trials.model_dump().items() if number]
    if not counts:
        return None
    return tag("div", *(join(tag("b", f"{number:,}"), f" {name} ") for name, number in counts), class_="counts")


def _saved(study: StudySummary) -> Child:
    if not study.savings.examples:
        return None
    about = f"{study.savings.examples:,} examples that paused and pruned trials did not see"
    return tag("span", percent(study.savings.share), title=about)
