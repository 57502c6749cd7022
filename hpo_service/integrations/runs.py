"""Which run is whose, and what all that is told of runs is read from."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from hpo_service.integrations.base import Metric, Run
from hpo_service.storage.queries import outbox
from hpo_service.storage.queries.outbox import OutboxEvent
from hpo_service.storage.tables import Study
from trainer.snapshots.stores import Store


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


def metrics_of(known: Mapping[str, Any], examples: int, event: OutboxEvent) -> list[Metric]:
    """Figures that are known and finite, after so many examples."""
    return [
        Metric(name=name, value=float(value), examples=examples, at=event.created_at)
        for name, value in known.items()
        if isinstance(value, int | float) and math.isfinite(value)
    ]


def text_of(value: object) -> str:
    """A parameter, as trackers show it."""
    return value if isinstance(value, str) else json.dumps(value)
