"""What runs, what waits, and what happened: parts of several pages."""

from collections.abc import Sequence

from hpo_service.console.frame import Column, chip, empty, moment, panel, stacked, table
from hpo_service.console.words import gibibytes, percent, progress, speed, study_link, trial_link
from hpo_service.formatting.events import describe
from hpo_service.formatting.html import Child, Markup, join, tag
from hpo_service.services.common.schemas import UsageDocument
from hpo_service.services.execution.schemas import WorkerDocument
from hpo_service.services.views.start_page import Running
from hpo_service.storage.queries.overview import OpenSlice, RecentEvent
from trainer.spec import Outcome

_RUNNING = (
    Column(title="Worker"),
    Column(title="Trial"),
    Column(title="Progress", wide=True),
    Column(title="Train loss", number=True),
    Column(title="Speed", number=True),
    Column(title="Memory", number=True),
    Column(title="Busy · MFU", number=True),
    Column(title="Since", number=True),
)
_MOST_WAITING = 20
_BAD = frozenset({"trial.failed", "worker.lost", "worker.quarantined", "worker.refused", "intent.refused"})
_MEASURED = "memory_prediction"  #: a notice that says how well it was predicted
_WARNING = frozenset({"slice.retried", "snapshot.discarded", "trial.notice", "budget.nearly_spent"})


def running_panel(running: Running, workers: Sequence[WorkerDocument], *, with_study: bool = True) -> Markup:
    """Slices that run, by worker, then workers that have nothing to do."""
    slices = [one for one in running.slices if one.state == "running"]
    busy = {one.worker for one in slices}
    rows = [_slice(one, running.earlier.get((one.study_id, one.trial_number)), with_study) for one in slices]
    rows += [_idle(worker) for worker in workers if worker.name not in busy]
    if not with_study and not rows:
        return panel("running", "Running now", class_="gone")
    hidden = running.counts.get("running", 0) - len(slices) if with_study else 0
    note = tag("p", f"{hidden:,} more slices run.", class_="soft") if hidden > 0 else None
    nothing = empty("No slice runs now.")
    content = table(_RUNNING, rows, name="Slices that run, by worker") if rows else nothing
    return panel("running", "Running now", content, note, aside=_sizes(len(slices) + max(hidden, 0), workers))


def waiting_panel(running: Running, queued: Sequence[str]) -> Markup:
    """Studies that wait for their first slice, and slices that wait for a worker."""
    slices = [one for one in running.slices if one.state == "waiting"]
    items = [tag("li", study_link(name), tag("span", " waits for its first slice", class_="soft")) for name in queued]
    items += [_waiting(one) for one in slices[:_MOST_WAITING]]
    count = running.counts.get("waiting", 0)
    more = count - min(len(slices), _MOST_WAITING)
    note = tag("p", f"{more:,} more slices wait.", class_="soft") if more > 0 else None
    nothing = empty("Nothing waits.")
    return panel("queue", "Queue", tag("ul", *items, class_="plain") if items else nothing, note)


def events_panel(events: Sequence[RecentEvent], *, with_study: bool = True) -> Markup:
    """The newest first. The script reads the first one aloud when it changes."""
    told = [(event, words) for event in events if (words := describe(event.kind, event.trial_number, event.payload))]
    items = [_event(event, words, with_study) for event, words in told]
    nothing = empty("Nothing has happened yet.")
    newest = str(told[0][0].id) if told else ""
    content = tag("ol", *items, class_="plain events", data_newest=newest) if items else nothing
    return panel("events", "Recent events", content)


def _sizes(slices: int, workers: Sequence[WorkerDocument]) -> str:
    words = [f"{slices:,} slice{'' if slices == 1 else 's'}"]
    if workers:
        words.append(f"{len(workers):,} worker{'' if len(workers) == 1 else 's'}")
    quarantined = sum(worker.state == "quarantined" for worker in workers)
    if quarantined:
        words.append(f"{quarantined} quarantined")
    return " · ".join(words)


def _slice(one: OpenSlice, earlier: UsageDocument | None, with_study: bool) -> list[Child]:
    told = one.progress
    where = None if not one.node and not one.device else " · ".join(filter(None, (one.node, one.device)))
    attempt = f"attempt {one.attempt}" if one.attempt > 1 else None
    loss, tokens, memory = (told.get(name) for name in ("train_loss", "tokens_per_second", "memory_bytes"))
    trial = trial_link(one.study, one.trial_number)
    return [
        stacked(one.worker or "–", where),
        stacked(join(study_link(one.study), " ", trial) if with_study else trial, attempt),
        progress(one),
        None if loss is None else f"{loss:.4f}",
        speed(tokens) if tokens else None,
        gibibytes(memory) if memory else None,
        _efficiency(earlier),
        None if one.started_at is None else moment(one.started_at),
    ]


def _efficiency(earlier: UsageDocument | None) -> Child:
    """Of the trial's slices that have ended: a running one does not tell."""
    if earlier is None or earlier.busy is None:
        return None
    words = " · ".join(filter(None, (percent(earlier.busy), percent(earlier.mfu))))
    return tag("span", words, title="of this trial's earlier slices")


def _idle(worker: WorkerDocument) -> list[Child]:
    where = " · ".join(filter(None, (worker.node, worker.device)))
    standing = chip(worker.state, "idle" if worker.state == "ready" else worker.state)
    about = tag("span", worker.message, class_="soft") if worker.message else None
    return [stacked(worker.name, where), standing, about, None, None, None, None, None]


def _waiting(one: OpenSlice) -> Markup:
    again = f", attempt {one.attempt + 1}" if one.attempt else ""
    words = f" waits to go to {one.until_examples:,} examples{again} "
    link = join(study_link(one.study), " ", trial_link(one.study, one.trial_number))
    return tag("li", link, tag("span", words, moment(one.created_at), class_="soft"))


def _tone(event: RecentEvent) -> str:
    if event.kind in _BAD or event.payload.get("state") == "failed":
        return "tone-bad"
    asked_for = event.payload.get("outcome") == Outcome.PREEMPTED  # by a pause, or a worker that drains
    expected = asked_for or event.payload.get("kind") == _MEASURED
    warns = event.kind in _WARNING and not expected
    return "tone-warning" if warns else ""


def _event(event: RecentEvent, words: str, with_study: bool) -> Markup:
    tone = _tone(event)
    name = study_link(event.study) if with_study and event.study is not None else None
    return tag("li", moment(event.created_at), tag("span", name, " " if name else None, words, class_=tone))
