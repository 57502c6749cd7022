"""The page of a study: where it stands, its curves, its trials, and what can be asked of it."""

from typing import Any
from urllib.parse import urlencode

from hpo_service.console.activity import events_panel, running_panel
from hpo_service.console.amounts import spending
from hpo_service.console.buttons import outcome
from hpo_service.console.frame import (
    Assets,
    Column,
    Viewer,
    chip,
    console_page,
    empty,
    facts,
    live,
    menu,
    panel,
    stacked,
    table,
)
from hpo_service.console.start import note
from hpo_service.console.study_actions import dialogs, steering_buttons
from hpo_service.console.words import gibibytes, percent, speed, standing, study_address, trial_link
from hpo_service.core.study_rules import TERMINAL
from hpo_service.exporters import FORMATS
from hpo_service.formatting.comparison import gain
from hpo_service.formatting.html import Child, Markup, join, tag
from hpo_service.formatting.values import (
    after_more,
    duration,
    energy,
    loss,
    lowering,
    parts_ahead,
    plural,
    share,
    value_text,
)
from hpo_service.reports.blocks import Figure
from hpo_service.reports.plots.bars import importance_bars
from hpo_service.reports.plots.curves import learning_curves
from hpo_service.services.studies.schemas import ImprovementDocument, OutlookDocument, ReserveDocument, StudyDocument
from hpo_service.services.trials.schemas import TrialSummary
from hpo_service.services.views.study_page import StudyPage

_SEARCHED_SHOWN = 6
_DOCUMENTS = (
    ("study", ""),
    ("trials", "/trials"),
    ("decisions", "/decisions"),
    ("importances", "/importances"),
    ("slices", "/slices"),
    ("data check", "/data-check"),
)
_NO_LOSS = "No trial has reached its first rung."


def study_page(page: StudyPage, viewer: Viewer, assets: Assets, *, mlflow: str | None) -> Markup:
    """The whole page. `mlflow` is the address of the server that the study is told to."""
    study = page.study
    return console_page(
        study.name,
        "/",
        assets,
        _head(page, viewer),
        outcome("page-outcome"),
        _links(page, mlflow),
        live("dialogs", *dialogs(page, viewer), element="div"),
        _warnings(page),
        tag("div", _standing(page), _best(page), class_="columns"),
        tag("div", panel("curves", "Learning curves", *_curves(page)), _importances(page), class_="columns"),
        running_panel(page.running, (), with_study=False),
        _trials(page),
        events_panel(page.events, with_study=False),
    )


def _head(page: StudyPage, viewer: Viewer) -> Markup:
    study = page.study
    title = tag("div", tag("h1", study.name), chip(study.state), class_="title")
    words = note(study)
    buttons = steering_buttons(page, viewer)
    actions = tag("div", *buttons, class_="buttons", data_outcome="page-outcome") if buttons else None
    return live("head", title, tag("p", words, class_="soft") if words else None, actions, class_="head")


def _links(page: StudyPage, mlflow: str | None) -> Markup:
    study = page.study
    base = f"/v1/studies/{study.name}"
    links: list[Child] = [tag("a", "Report", href=f"{base}/report")]
    if study.dashboard is not None:
        links.append(tag("a", "Optuna dashboard", href=study.dashboard))
    if mlflow is not None:
        links.append(tag("a", "MLflow", href=mlflow, rel="noopener noreferrer"))
    if page.best is not None:
        exports = [(name, f"{base}/best/export?{urlencode({'format': name})}") for name in FORMATS]
        links.append(menu("exports", "Export the best", exports))
    links.append(menu("documents", "As JSON", [(title, f"{base}{path}") for title, path in _DOCUMENTS]))
    return live("links", *links, element="nav", class_="links")


def _warnings(page: StudyPage) -> Markup:
    study = page.study
    words: list[Child] = []
    if study.standstill is not None:
        words.append(tag("p", study.standstill, class_="warning"))
    words += [
        tag("p", edge.message, "; widen it with ", tag("code", edge.command), class_="warning") for edge in study.edges
    ]
    return live("warnings", *words, element="div")


def _standing(page: StudyPage) -> Markup:
    study, usage = page.study, page.study.usage
    counts = study.trials.model_dump()
    standings = ", ".join(f"{number:,} {name}" for name, number in counts.items() if number) or "none yet"
    known = facts(
        [
            ("Trials", standings),
            ("Saved", _saved(page)),
            ("Kept back", _kept_back(study.reserve)),
            ("Speed", speed(usage.tokens_per_second) if usage.tokens_per_second else None),
            ("GPU busy", percent(usage.busy)),
            ("MFU", share(usage.mfu)),
            ("Peak memory", gibibytes(usage.peak_memory_bytes) if usage.peak_memory_bytes else None),
            ("Energy", energy(usage.energy_joules) if usage.energy_joules else None),
            ("Outlook", _outlook(study.outlook)),
        ]
    )
    return panel("standing", "Budget", spending(study, study.resolved["budget"], study.forecast), known)


def _saved(page: StudyPage) -> str | None:
    savings = page.study.savings
    return f"{savings.share:.0%} of all examples, by pausing and pruning" if savings.examples else None


def _kept_back(reserve: ReserveDocument | None) -> str | None:
    if reserve is None:
        return None
    who = "a trial" if reserve.trial_number is None else f"trial {reserve.trial_number}"
    return f"{reserve.examples:,} examples for training {who} to its end"


def _outlook(found: OutlookDocument | None) -> str | None:
    if found is None:
        return None
    ten, tenth = found.ten_gpu_hours, found.tenth_of_the_bill
    words = [
        f"another {what} should lower the loss by {lowering(purchase.expected_improvement)}"
        for what, purchase in (("10 GPU-hours", ten), ("10 % of the bill", tenth))
        if purchase is not None
    ]
    return f"{'; '.join(words)} (an estimate)"


def _best(page: StudyPage) -> Markup:
    best = page.best
    title = "Best" if page.study.state in TERMINAL else "Best so far"
    if best is None:
        return panel("best", title, empty(_NO_LOSS))
    about = "trained to its end"
    if best.provisional:
        about = f"after {best.examples:,} examples; it leads, and no searched trial has reached its end yet"
    elif best.confirmed is not None:
        about = f"mean over {plural(best.confirmed.seeds, 'new seed')}"
    confirmation = page.study.confirmation
    content = (
        tag(
            "p",
            tag("strong", f"{best.loss:.4f}", class_="figure"),
            " ",
            trial_link(page.study.name, best.trial_number),
            tag("span", f", {about}", class_="soft"),
        ),
        tag("p", page.verdict),
        _leader(page.study, best.trial_number),
        _against(best.improvement, best.trial_number),
        tag("p", "Confirmation: ", confirmation.sentence or confirmation.message) if confirmation else None,
        facts([(name, tag("code", value_text(value))) for name, value in _sampled(page, best.parameters)]),
    )
    return panel("best", title, *content)


def _leader(study: StudyDocument, best: int) -> Markup | None:
    """The trial that is ahead of all others, where that is not the best one."""
    leader = study.leader
    if leader is None or leader.ahead_of_best is None:
        return None
    lead, ended = leader.ahead_of_best, "" if leader.complete else ", not trained to its end"
    return tag(
        "p",
        "Leader: ",
        trial_link(study.name, leader.trial_number),
        f"{ended}. After {lead.examples:,} examples its loss was {lead.loss:.4f}, that of trial {best} "
        f"{lead.best_loss:.4f}{after_more(lead.examples, lead.best_examples)}"
        f"{parts_ahead(lead.parts_ahead, lead.parts)}.",
    )


def _against(found: ImprovementDocument | None, best: int) -> Markup | None:
    if found is None or found.baseline_trial == best:
        return None
    rows = [
        ["baseline", f"trial {found.baseline_trial}", f"{found.baseline_examples:,}", f"{found.baseline_loss:.4f}"],
        ["best", f"trial {best}", f"{found.examples:,}", f"{found.loss:.4f}"],
    ]
    titles = (Column(title=""), Column(title="Trial"))
    columns = (*titles, Column(title="Examples", number=True), Column(title="Loss", number=True))
    words = f"{gain(found.relative, **_both(found))}."
    return join(
        table(columns, [[*row] for row in rows], name="Baseline and best trial"),
        tag("p", f"Trial {best} is {words}", class_="soft"),
    )


def _both(found: ImprovementDocument) -> dict[str, Any]:
    return found.model_dump(include={"loss", "baseline_loss", "examples", "baseline_examples", "seeds"})


def _sampled(page: StudyPage, parameters: dict[str, object]) -> list[tuple[str, object]]:
    names = [one.name for one in page.searched]
    return [(name, parameters[name]) for name in names if name in parameters]


def _curves(page: StudyPage) -> list[Child]:
    figure = learning_curves(page)
    return [empty(_NO_LOSS) if figure is None else plot(figure)]


def plot(figure: Figure) -> Markup:
    """A plot with its legend and caption."""
    keys = [tag("span", tag("i", class_=key.mark), key.text) for key in figure.legend]
    return tag(
        "figure",
        tag("div", figure.plot, class_="plot", tabindex="0", role="group", aria_label=figure.title),
        tag("div", *keys, class_="legend") if keys else None,
        tag("figcaption", figure.words()),
    )


def _importances(page: StudyPage) -> Markup:
    found = page.importances
    figure = importance_bars(found)
    words = f"{found.trials} trials have a loss; {found.needed} are needed to say what mattered."
    return panel("importances", "Which parameters mattered", empty(words) if figure is None else plot(figure))


def _trials(page: StudyPage) -> Markup:
    shown = page.table
    if not shown.trials:
        return panel("trials", "Trials", empty("No trial yet."))
    names = [one.name for one in page.searched][:_SEARCHED_SHOWN]
    columns = (
        Column(title="Trial"),
        Column(title="State"),
        Column(title="Loss", number=True),
        Column(title="Examples", number=True),
        *(Column(title=name, number=True) for name in names),
        Column(title="Took", number=True),
        Column(title="Attempts", number=True),
    )
    rows = [_trial(page, trial, names) for trial in shown.trials]
    parts = (table(columns, rows, name="Trials"), _pages(page))
    return panel("trials", "Trials", *parts, aside=_orders(page))


def _trial(page: StudyPage, trial: TrialSummary, names: list[str]) -> list[Child]:
    best = page.best is not None and page.best.trial_number == trial.number
    tags = [name for name, on in (("best", best), ("baseline", trial.baseline)) if on]
    last = next((rung.loss for rung in reversed(trial.losses) if rung.loss is not None), None)
    total = trial.total_examples
    # The loss at its end is told at the rung before, if one step reached both.
    seen = trial.examples_seen if trial.state != "COMPLETE" or total is None else total
    return [
        join(trial_link(page.study.name, trial.number), *(join(" ", chip(name)) for name in tags)),
        stacked(chip(standing(trial)), trial.outcome),
        loss(last),
        f"{seen:,}" if total is None else f"{seen:,} / {total:,}",
        *(value_text(trial.parameters[name]) if name in trial.parameters else None for name in names),
        duration(trial.seconds) if trial.seconds else None,
        str(trial.attempts),
    ]


def _orders(page: StudyPage) -> Markup:
    """Links to the two orders."""
    return join(
        *(
            tag("a", title, href=_part(page, order, 1), **({"aria_current": "true"} if chosen else {}))
            for order, title in (("best", "best first"), ("newest", "newest first"))
            for chosen in (order == page.table.order,)
        )
    )


def _pages(page: StudyPage) -> Markup | None:
    shown = page.table
    if shown.pages == 1:
        return None
    links: list[Child] = [
        tag("span", f"page {shown.page:,} of {shown.pages:,}, {len(page.points):,} trials", class_="soft")
    ]
    if shown.page > 1:
        links.insert(0, tag("a", "← before", href=_part(page, shown.order, shown.page - 1), rel="prev"))
    if shown.page < shown.pages:
        links.append(tag("a", "next →", href=_part(page, shown.order, shown.page + 1), rel="next"))
    return tag("nav", *links, class_="pages", aria_label="Pages of trials")


def _part(page: StudyPage, order: str, number: int) -> str:
    return f"{study_address(page.study.name)}?{urlencode({'order': order, 'page': number})}#trials"
