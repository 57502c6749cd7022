"""From committed events to what a tracker is told of the runs that they are about."""

import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from hpo_service.best import ranking
from hpo_service.domain import TERMINAL, StudyState
from hpo_service.errors import NotFound
from hpo_service.intents import EventKind
from hpo_service.outbox.base import Metric, Run, RunState, RunUpdate
from hpo_service.outbox.run_files import adapter_writer, all_of, text_writer
from hpo_service.repository import attempts, optuna_reads, outbox
from hpo_service.repository.optuna_reads import TrialRow
from hpo_service.repository.outbox import OutboxEvent
from hpo_service.repository.usage import consumed_by_study
from hpo_service.studies.facts import TrialFacts
from hpo_service.studies.results import export_best, show_best
from hpo_service.tables import Study
from trainer.spec import SnapshotRef
from trainer.stores import Store

log = logging.getLogger(__name__)

LOSS = "eval_loss"
_TRIAL_STATES = {
    EventKind.SLICE_STARTED: ("running", RunState.RUNNING),
    EventKind.TRIAL_PAUSED: ("paused", None),
    EventKind.TRIAL_COMPLETED: ("complete", RunState.FINISHED),
    EventKind.TRIAL_PRUNED: ("pruned", RunState.KILLED),
    EventKind.TRIAL_FAILED: ("failed", RunState.FAILED),
}
_TRIAL_ENDS = frozenset({EventKind.TRIAL_COMPLETED, EventKind.TRIAL_PRUNED, EventKind.TRIAL_FAILED})
_STUDY_ENDS = {
    StudyState.COMPLETED: RunState.FINISHED,
    StudyState.FAILED: RunState.FAILED,
    StudyState.CANCELLED: RunState.KILLED,
}
_TOLD = frozenset({EventKind.STUDY_STATE, EventKind.TRIAL_REPORTED, *_TRIAL_STATES})
#: what is known of a trial at its end, by the attribute that keeps it
_END_METRICS = {"cost_usd": "cost_usd", "seconds": "seconds", "examples": "examples_trained", "test_loss": "test_loss"}
_SAID = ("reason", "outcome", "message")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One batch of events, and what is known of the studies that they belong to."""

    session: Session
    outbox: str
    store: Store
    keep_best: int
    studies: Mapping[int, Study]
    projects: Mapping[int, str]


def read(session: Session, identity: str, events: Sequence[OutboxEvent], *, store: Store, keep_best: int) -> Reading:
    """What all that is told of these events is read from."""
    studies = outbox.studies_called(session, {event.study_id for event in events if event.study_id is not None})
    projects = outbox.project_names(session, {study.project_id for study in studies.values()})
    return Reading(
        session=session, outbox=identity, store=store, keep_best=keep_best, studies=studies, projects=projects
    )


def read_updates(reading: Reading, events: Sequence[OutboxEvent]) -> list[RunUpdate]:
    """One update for each run that the events are about, in the order of the runs' last events.

    The session is not needed afterwards. A study's end brings the adapters of its `keep_best` best trials with it.
    """
    told: dict[tuple[int, int | None], list[OutboxEvent]] = {}
    for event in events:
        if event.study_id is not None and event.kind in _TOLD:
            key = (event.study_id, event.trial_number)
            told[key] = [*told.pop(key, []), event]
    ended = _ended_trials(reading, told)
    updates = list[RunUpdate]()
    for (study_id, number), history in told.items():
        study = reading.studies[study_id]
        if number is None:
            updates += _study_updates(reading, study, history)
        else:
            updates.append(_trial_update(reading, study, number, history, ended.get((study_id, number))))
    return updates


def study_run(reading: Reading, study: Study) -> Run:
    """The run of a study; that of one which confirms another is nested in the other's."""
    key = f"{reading.outbox}/{study.id}"
    parent = None if study.parent_study_id is None else study_run(reading, reading.studies[study.parent_study_id])
    labels: Mapping[str, str] = study.resolved["metadata"]["labels"]
    project = reading.projects[study.project_id]
    tags = {"hpo.study": study.name, "hpo.project": project} | {f"label.{name}": labels[name] for name in labels}
    return Run(key=key, name=study.name, project=project, parent=parent, started_at=study.created_at, tags=tags)


def trial_run(reading: Reading, study: Study, number: int, begun_at: datetime) -> Run:
    """The run of a trial, which began then if it is not there yet."""
    parent = study_run(reading, study)
    return Run(
        key=f"{parent.key}/{number}",
        name=f"trial {number}",
        project=parent.project,
        parent=parent,
        started_at=begun_at,
        tags={"hpo.study": study.name, "hpo.trial": str(number)},
    )


def _trial_update(
    reading: Reading, study: Study, number: int, history: Sequence[OutboxEvent], row: TrialRow | None
) -> RunUpdate:
    parameters: dict[str, str] = {}
    tags: dict[str, str] = {}
    metrics = list[Metric]()
    state, ended_at = None, None
    for event in history:
        kind = EventKind(event.kind)
        if kind is EventKind.SLICE_STARTED:
            parameters = {name: _text(value) for name, value in event.payload["parameters"].items()}
        elif kind is EventKind.TRIAL_REPORTED:
            metrics += _rung_metrics(event)
        if kind in _TRIAL_STATES:
            tags["hpo.state"], entered = _TRIAL_STATES[kind]
            state = entered or state
            tags |= {f"hpo.{name}": str(event.payload[name]) for name in _SAID if event.payload.get(name)}
        if kind in _TRIAL_ENDS:
            ended_at = event.created_at
    if row is not None and ended_at is not None:
        attrs, examples = row.user_attrs, max(row.intermediate_values, default=0)
        known = {told: attrs.get(name) for name, told in _END_METRICS.items()}
        metrics += _metrics(known, examples, history[-1])
        tags |= {"hpo.baseline": "true"} if attrs.get("baseline") is True else {}
    return RunUpdate(
        run=trial_run(reading, study, number, history[0].created_at),
        parameters=parameters,
        metrics=metrics,
        tags=tags,
        state=state,
        ended_at=ended_at,
    )


def _study_updates(reading: Reading, study: Study, history: Sequence[OutboxEvent]) -> Iterable[RunUpdate]:
    last, run = history[-1], study_run(reading, study)
    state = StudyState(last.payload["state"])
    tags = {"hpo.state": str(state), "hpo.message": str(last.payload.get("message", ""))}
    opened = any(event.payload["state"] == StudyState.QUEUED for event in history)
    spec = json.dumps(study.spec, indent=2, ensure_ascii=False)
    writers = [text_writer("study.json", spec)] if opened else []
    metrics: Sequence[Metric] = ()
    if state in TERMINAL and study.optuna_study_id is not None:
        metrics = _study_metrics(reading, study, last)
        if study.parent_study_id is None:
            yield from _adapters(reading, study, last)
            best = _best_config(reading, study)
            writers += [] if best is None else [text_writer("best.yaml", best)]
    yield RunUpdate(
        run=run,
        parameters=_study_parameters(study),
        metrics=metrics,
        tags=tags,
        state=_STUDY_ENDS.get(state, RunState.RUNNING),
        ended_at=last.created_at if state in TERMINAL else None,
        write_files=all_of(writers) if writers else None,
    )


def _adapters(reading: Reading, study: Study, last: OutboxEvent) -> Iterable[RunUpdate]:
    assert study.optuna_study_id is not None
    rows = optuna_reads.read_trials(reading.session.connection(), study.optuna_study_id)
    for best in ranking([TrialFacts(row) for row in rows], reading.keep_best):
        number = best.trial_number
        known = attempts.snapshots_of_trial(reading.session, study.project_id, study.id, number)
        snapshots = [SnapshotRef.model_validate(snapshot) for snapshot in known]
        run = trial_run(reading, study, number, last.created_at)
        yield RunUpdate(run=run, write_files=adapter_writer(reading.store, snapshots, run.key))


def _study_metrics(reading: Reading, study: Study, last: OutboxEvent) -> list[Metric]:
    spent = consumed_by_study(reading.session, study.project_id, [study.id])[study.id].spent
    known: dict[str, Any] = {
        "trials": spent.trials,
        "cost_usd": spent.usd,
        "device_seconds": spent.seconds,
        "examples_trained": spent.examples,
    }
    examples = 0
    try:
        best = show_best(reading.session, study.project_id, study.name)
        known["best_loss"], examples = best.loss, best.examples
    except NotFound:
        log.info("study %s ended before its first rung", study.name, extra={"study_id": study.id})
    return _metrics(known, examples, last)


def _best_config(reading: Reading, study: Study) -> str | None:
    try:
        return export_best(reading.session, study.project_id, study.name, "yaml").text
    except NotFound:
        return None


def _study_parameters(study: Study) -> dict[str, str]:
    resolved = study.resolved
    chosen = {
        "model": resolved["model"]["path"],
        "train": resolved["data"]["train"],
        "strategy": resolved["search"]["strategy"],
        "sampler": resolved["search"]["sampler"],
        "seed": resolved["search"]["seed"],
    }
    return {name: _text(value) for name, value in chosen.items()}


def _rung_metrics(event: OutboxEvent) -> list[Metric]:
    payload = event.payload
    return _metrics({LOSS: payload["loss"], "slice_seconds": payload["seconds"]}, payload["examples"], event)


def _metrics(known: Mapping[str, Any], examples: int, event: OutboxEvent) -> list[Metric]:
    return [
        Metric(name=name, value=float(value), examples=examples, at=event.created_at)
        for name, value in known.items()
        if isinstance(value, int | float) and math.isfinite(value)
    ]


def _ended_trials(
    reading: Reading, told: Mapping[tuple[int, int | None], Sequence[OutboxEvent]]
) -> dict[tuple[int, int], TrialRow]:
    """The rows of trials that ended, by study and number; those of deleted studies are gone."""
    wanted: dict[int, list[int]] = {}
    for (study_id, number), history in told.items():
        if number is not None and any(event.kind in _TRIAL_ENDS for event in history):
            wanted.setdefault(study_id, []).append(number)
    return {
        (study_id, row.number): row
        for study_id, numbers in wanted.items()
        if (optuna_id := reading.studies[study_id].optuna_study_id) is not None
        for row in optuna_reads.read_trials_called(reading.session.connection(), optuna_id, numbers)
    }


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
