"""The page of a trial: its parameters, its losses, and every attempt at its slices."""

from hpo_service.auth.principals import Scope
from hpo_service.console.buttons import opener, outcome
from hpo_service.console.frame import (
    Assets,
    Column,
    Viewer,
    chip,
    console_page,
    empty,
    facts,
    live,
    moment,
    panel,
    stacked,
    table,
)
from hpo_service.console.study_actions import promote_dialog
from hpo_service.console.words import gibibytes, percent, speed, standing, study_link
from hpo_service.formatting.html import Child, Markup, tag
from hpo_service.formatting.values import cell, duration, value_text
from hpo_service.services.trials.schemas import AttemptDocument, TrialDocument

_ATTEMPTS = (
    Column(title="To examples", number=True),
    Column(title="Attempt", number=True),
    Column(title="Where"),
    Column(title="Ended", wide=True),
    Column(title="Began"),
    Column(title="Took", number=True),
    Column(title="Examples", number=True),
    Column(title="Speed", number=True),
    Column(title="MFU", number=True),
    Column(title="Peak memory", number=True),
    Column(title="USD", number=True),
)


def trial_page(study: str, trial: TrialDocument, viewer: Viewer, assets: Assets) -> Markup:
    """The whole page."""
    base = f"/v1/studies/{study}/trials/{trial.number}"
    links = [tag("a", "Log", href=f"{base}/logs"), tag("a", "As JSON", href=base)]
    if trial.adapter_available:
        links.append(tag("a", "Adapter", href=f"{base}/adapter"))
    return console_page(
        f"Trial {trial.number} of {study}",
        "/",
        assets,
        _head(study, trial, viewer),
        outcome("page-outcome"),
        live("links", *links, element="nav", class_="links"),
        live("dialogs", *_dialogs(study, trial, viewer), element="div"),
        tag("div", _parameters(trial), _losses(trial), class_="columns"),
        _attempts(trial),
    )


def _may_promote(trial: TrialDocument, viewer: Viewer) -> bool:
    return trial.state == "COMPLETE" and viewer.may(Scope.PROMOTE)


def _dialogs(study: str, trial: TrialDocument, viewer: Viewer) -> list[Markup]:
    return [promote_dialog(study, trial.number)] if _may_promote(trial, viewer) else []


def _head(study: str, trial: TrialDocument, viewer: Viewer) -> Markup:
    marks = [chip("baseline")] if trial.baseline else []
    title = tag("div", tag("h1", f"Trial {trial.number}"), chip(standing(trial)), *marks, class_="title")
    words = ". ".join(filter(None, (trial.outcome, trial.message)))
    buttons = tag("div", opener("promote", "Promote…"), class_="buttons") if _may_promote(trial, viewer) else None
    about = tag("p", "of study ", study_link(study), class_="soft")
    return live("head", title, about, tag("p", words) if words else None, buttons, class_="head")


def _parameters(trial: TrialDocument) -> Markup:
    values = [(name, tag("code", value_text(value))) for name, value in trial.parameters.items()]
    return panel("parameters", "Parameters", facts(values) if values else empty("They are sampled when it starts."))


def _losses(trial: TrialDocument) -> Markup:
    if not trial.losses:
        return panel("losses", "Losses", empty("It has not reached its first rung yet."))
    columns = (Column(title="Rung", number=True), Column(title="Evaluation loss", number=True))
    rows: list[list[Child]] = [
        [f"{rung.examples:,}", "not finite" if rung.loss is None else f"{rung.loss:.4f}"] for rung in trial.losses
    ]
    end = None if trial.total_examples is None else f"rungs are in examples, its end is at {trial.total_examples:,}"
    return panel("losses", "Losses", table(columns, rows, name="Losses"), aside=end)


def _attempts(trial: TrialDocument) -> Markup:
    if not trial.history:
        return panel("attempts", "Attempts", empty("It was not on a worker yet."))
    rows = [_attempt(attempt) for attempt in trial.history]
    took = duration(trial.seconds) + (f" · {trial.cost_usd:,.4f} USD" if trial.cost_usd else "")
    return panel("attempts", "Attempts", table(_ATTEMPTS, rows, name="Attempts"), aside=took)


def _attempt(one: AttemptDocument) -> list[Child]:
    usage = one.usage
    device = f"{one.devices} × {one.device}" if one.device and one.devices > 1 else one.device
    where = " · ".join(filter(None, (one.node, device, one.dtype)))
    ended = chip("running") if one.outcome is None else chip(one.outcome)
    why = ": ".join(filter(None, (one.cause, one.message)))
    about = "an estimate: the worker was lost" if one.estimated else None
    return [
        f"{one.until_examples:,}",
        str(one.attempt),
        stacked(one.worker or "–", where),
        stacked(ended, why),
        moment(one.started_at),
        stacked(duration(one.seconds), about) if one.finished_at is not None else None,
        cell(one.examples),
        speed(usage.tokens_per_second) if usage.tokens_per_second else None,
        percent(usage.mfu),
        gibibytes(usage.peak_memory_bytes) if usage.peak_memory_bytes else None,
        f"{one.cost_usd:,.4f}" if one.cost_usd else None,
    ]
