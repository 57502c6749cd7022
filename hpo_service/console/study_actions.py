"""What can be asked of a study: the buttons of its page and their dialogs."""

import json
from urllib.parse import quote

from hpo_service.auth.principals import Scope
from hpo_service.console.buttons import Field, button, dialog, opener
from hpo_service.console.frame import Viewer
from hpo_service.core.messages import IntentKind
from hpo_service.formatting.html import Markup
from hpo_service.formatting.values import value_text
from hpo_service.reports.plots.scales import short
from hpo_service.services.views.study_page import Searched, StudyPage

_TITLES = {
    IntentKind.PAUSE: "Pause",
    IntentKind.RESUME: "Resume",
    IntentKind.STOP: "Stop",
    IntentKind.CANCEL: "Cancel",
}
_QUESTIONS = {
    IntentKind.STOP: "Stop study {name}? Running slices finish, the best is kept, and it cannot be resumed.",
    IntentKind.CANCEL: "Cancel study {name}? Running slices stop at their next step, and it cannot be resumed.",
}
_CAPS = (
    ("max_trials", "Trials"),
    ("max_gpu_hours", "GPU-hours"),
    ("max_cost_usd", "USD"),
    ("max_examples", "Examples"),
    ("max_wall_hours", "Hours on the clock"),
)


def steering_buttons(page: StudyPage, viewer: Viewer) -> list[Markup]:
    """As far as the study's state and the viewer's key allow."""
    buttons: list[Markup] = []
    if viewer.may(Scope.STUDY_WRITE):
        buttons += _steering(page)
    if can_promote(page, viewer):
        buttons.append(opener("promote", "Promote…"))
    if viewer.may(Scope.STUDY_WRITE) and page.steering.deletable:
        buttons.append(_delete(page.study.name))
    return buttons


def can_promote(page: StudyPage, viewer: Viewer) -> bool:
    """Whether there is something to promote that was trained to its end, and the viewer may."""
    return page.best is not None and not page.best.provisional and viewer.may(Scope.PROMOTE)


def dialogs(page: StudyPage, viewer: Viewer) -> list[Markup]:
    """The dialogs that the buttons open."""
    found = []
    if viewer.may(Scope.STUDY_WRITE) and page.steering.searches:
        found += [_extend(page), _enqueue(page)]
    if can_promote(page, viewer) and page.best is not None:
        found.append(promote_dialog(page.study.name, page.best.trial_number))
    return found


def promote_dialog(study: str, trial_number: int) -> Markup:
    """Asks for the name of the promotion."""
    return dialog(
        "promote",
        "Promote parameters",
        [
            Field(path="name", title="To the name", value=study, required=True, hint="its next version is made"),
            Field(path="trial", title="Trial", value=str(trial_number), kind="number", required=True),
            Field(path="note", title="Note", hint="for those who see it later"),
        ],
        "/v1/promotions",
        submit="Promote",
        done="Promoted; see Promotions.",
        about="A promotion is what production pulls. It never changes; going back makes a new version.",
        fixed=json.dumps({"study": study}),
    )


def _steering(page: StudyPage) -> list[Markup]:
    name = page.study.name
    base = _base(name)
    buttons = [
        button(
            str(kind),
            _TITLES[kind],
            f"{base}:{kind}",
            done=f"{_TITLES[kind]} was asked for.",
            confirm=_QUESTIONS[kind].format(name=name) if kind in _QUESTIONS else None,
            danger=kind is IntentKind.CANCEL,
        )
        for kind in page.steering.kinds
    ]
    if page.steering.searches:
        buttons += [opener("extend", "Extend budget…", etag=page.study.etag), opener("enqueue", "Enqueue a trial…")]
    return buttons


def _delete(name: str) -> Markup:
    question = f"Delete study {name}? Its trials and snapshots are forgotten; promotions stay."
    return button(
        "delete",
        "Delete",
        _base(name),
        method="DELETE",
        done="Delete was asked for.",
        confirm=question,
        danger=True,
        go_to="/",
    )


def _extend(page: StudyPage) -> Markup:
    budget = page.study.resolved["budget"]
    fields = [
        Field(
            path=f"budget.{name}",
            title=title,
            value=""
            if budget[name] is None
            else f"{budget[name]:g}"
            if isinstance(budget[name], float)
            else str(budget[name]),
            kind="number",
            changed_only=True,
        )
        for name, title in _CAPS
    ]
    return dialog(
        "extend",
        "Extend the budget",
        fields,
        _base(page.study.name),
        method="PATCH",
        submit="Extend",
        done="Extend was asked for.",
        about="Caps of the whole study, what is spent included. Empty: no cap.",
    )


def _enqueue(page: StudyPage) -> Markup:
    known = {} if page.best is None else page.best.parameters
    fields = [_parameter(one, known.get(one.name)) for one in page.searched]
    return dialog(
        "enqueue",
        "Enqueue a trial",
        fields,
        f"{_base(page.study.name)}/trials",
        submit="Enqueue",
        done="The trial was enqueued.",
        about="Filled in with the best trial's values. What you leave empty is sampled.",
    )


def _parameter(one: Searched, best: object) -> Field:
    value = "" if best is None else value_text(best)
    if one.choices is not None:
        choices = [value_text(choice) for choice in one.choices]
        return Field(path=f"parameters.{one.name}", title=one.name, value=value, kind="value", choices=choices)
    hint = "" if one.low is None or one.high is None else f"{short(one.low)} to {short(one.high)}"
    return Field(path=f"parameters.{one.name}", title=one.name, value=value, kind="value", hint=hint)


def _base(name: str) -> str:
    return f"/v1/studies/{quote(name, safe='')}"
