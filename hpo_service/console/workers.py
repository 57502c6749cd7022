"""The page of the workers: what each is, what it does, and taking it out of work."""

from collections.abc import Sequence
from urllib.parse import quote

from hpo_service.auth.principals import Scope
from hpo_service.console.buttons import button, outcome
from hpo_service.console.frame import Assets, Column, Viewer, chip, console_page, empty, moment, panel, stacked, table
from hpo_service.console.words import study_link, trial_link
from hpo_service.formatting.html import Child, Markup, join, tag
from hpo_service.services.execution.schemas import HeldSliceDocument, WorkerDocument

_COLUMNS = (
    Column(title="Worker"),
    Column(title="State"),
    Column(title="Places"),
    Column(title="Does", wide=True),
    Column(title="Software"),
    Column(title="Since"),
    Column(title=""),
)
_TELLING = ("torch", "transformers", "peft", "deepspeed", "cuda")


def workers_page(workers: Sequence[WorkerDocument], viewer: Viewer, assets: Assets) -> Markup:
    """The whole page."""
    none = empty("No worker. They start with the dispatcher, or when a study wants one.")
    rows = [_row(worker, viewer) for worker in workers]
    content = table(_COLUMNS, rows, name="Workers") if rows else none
    return console_page(
        "Workers",
        "/workers",
        assets,
        tag("h1", "Workers", class_="unseen"),
        outcome("page-outcome"),
        panel("workers", "Workers", content, aside=f"{len(workers):,}"),
    )


def _row(worker: WorkerDocument, viewer: Viewer) -> list[Child]:
    asked = (
        f"asked for: {', '.join(kind.removeprefix('worker_') for kind in worker.pending)}" if worker.pending else None
    )
    unlike = "a step that it took twice gave other bits" if worker.repeatable is False else None
    words = ". ".join(filter(None, (worker.message, asked, unlike)))
    software = [f"{name} {worker.software[name]}" for name in _TELLING if worker.software.get(name)]
    buttons = _buttons(worker) if viewer.may(Scope.ADMIN) else []
    return [
        stacked(worker.name, " · ".join(filter(None, (worker.node, worker.device, worker.auto_dtype)))),
        chip(worker.state),
        ", ".join(worker.places),
        stacked(join(*(_held(one) for one in worker.slices)) or tag("span", "idle", class_="soft"), words),
        ", ".join(software),
        moment(worker.started_at),
        tag("div", *buttons, class_="buttons") if buttons else None,
    ]


def _held(one: HeldSliceDocument) -> Markup:
    return tag("div", study_link(one.study), " ", trial_link(one.study, one.trial_number))


def _buttons(worker: WorkerDocument) -> list[Markup]:
    """The API says which states each is for; the others are not shown."""
    found = []
    if worker.state == "ready":
        found.append(_ask(worker, "drain", "Its slices stop at their next step and go on elsewhere."))
    if worker.state in ("ready", "draining"):
        found.append(_ask(worker, "quarantine", "No worker is started at its places until it is released."))
    if worker.state == "quarantined":
        found.append(_ask(worker, "release", None))
    return found


def _ask(worker: WorkerDocument, verb: str, consequence: str | None) -> Markup:
    title = verb.capitalize()
    return button(
        f"{verb}-{worker.id}",
        title,
        f"/v1/workers/{quote(worker.name, safe='')}:{verb}",
        done=f"{title} was asked for.",
        confirm=None if consequence is None else f"{title} worker {worker.name}? {consequence}",
        danger=verb == "quarantine",
    )
