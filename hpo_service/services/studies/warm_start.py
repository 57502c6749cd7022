"""Gathers what earlier studies of the same project know, when a study is created."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import numpy as np
from sqlalchemy.orm import Session

from hpo_service.core.errors import InvalidSpec, Problem
from hpo_service.search.strategies.base import TrialView
from hpo_service.search.strategies.freeze_thaw.recall import carried, place
from hpo_service.services.studies.schemas import PastDocument
from hpo_service.spec import (
    FEWEST_TRIALS,
    MOST_STUDIES,
    MOST_TRIALS,
    PastStudy,
    ResolvedStudy,
    best_quarter,
    similarity,
)
from hpo_service.spec.space import SearchSpace
from hpo_service.storage.queries import optuna_reads, studies
from hpo_service.storage.tables import Study
from trainer.spec import Parameters

_LOOKED_AT = 100
_LEAST_SIMILARITY = 0.05


def with_past(session: Session, project_id: int, resolved: ResolvedStudy) -> ResolvedStudy:
    """The study with the trials of the most similar earlier ones. Raises InvalidSpec if one that it names has none."""
    search = resolved.search
    wanted = search.warm_start
    if search.strategy != "freeze_thaw" or wanted == "off" or (wanted == "auto" and search.deterministic):
        return resolved
    rows = (
        studies.opened(session, project_id, limit=_LOOKED_AT)
        if wanted == "auto"
        else _named(session, project_id, wanted)
    )
    known = [(row, ResolvedStudy.model_validate(row.resolved)) for row in rows]
    ranked = sorted(((similarity(resolved, old), row, old) for row, old in known), key=lambda found: -found[0])
    past: list[PastStudy] = []
    for share, row, old in ranked:
        if len(past) == MOST_STUDIES or (wanted == "auto" and share < _LEAST_SIMILARITY):
            break
        found = _told(session, resolved, row, old, share)
        if found is not None:
            past.append(found)
        elif wanted != "auto":
            raise _refused(
                f"search.warm_start names {row.name!r}, which has fewer than {FEWEST_TRIALS} trials with a loss that "
                "have a place in this space; wait for more results or leave it out."
            )
    return resolved.model_copy(update={"past": tuple(past)})


def past_documents(past: Sequence[Mapping[str, Any]], memory: Mapping[str, Any]) -> list[PastDocument]:
    """Which earlier studies a study knows, and how far it trusts them now."""
    trust = memory.get("trust", {})
    return [
        PastDocument(
            study=known["study"],
            similarity=known["similarity"],
            trials=len(known["losses"]),
            examples=known["examples"],
            weight=trust.get(known["study"]),
        )
        for known in past
    ]


def _named(session: Session, project_id: int, names: Sequence[str]) -> list[Study]:
    found = {row.name: row for row in studies.opened(session, project_id, limit=None)}
    for name in names:
        if name not in found:
            others = ", ".join(list(found)[:5]) or "none yet"
            raise _refused(
                f"search.warm_start names {name!r}, but this project has no study of that name with results; studies "
                f"that could be named: {others}."
            )
    return [found[name] for name in dict.fromkeys(names)]


def _told(session: Session, resolved: ResolvedStudy, row: Study, old: ResolvedStudy, share: float) -> PastStudy | None:
    """What one study knows; None if that is too little."""
    assert row.optuna_study_id is not None
    space = resolved.search_space()
    points, views, placed = list[dict[str, Any]](), list[TrialView](), list[int]()
    for trial in optuna_reads.read_trials(session.connection(), row.optuna_study_id):
        losses = {rung: loss for rung, loss in trial.intermediate_values.items() if isfinite(loss)}
        if not losses or not trial.parameters:
            continue
        point = _point(space, trial.parameters, trial.params)
        if place(space, point) is not None:
            placed.append(len(views))
        ladder = old.trial_rungs(Parameters.model_validate(trial.parameters))
        points.append(point)
        views.append(TrialView(number=len(views), standing="paused", losses=losses, ladder=ladder))
    if len(placed) < FEWEST_TRIALS:
        return None
    losses_at_end: list[float] = carried(views, old.ladder).tolist()
    good = set(best_quarter(losses_at_end))
    kept = [placed[index] for index in _kept([losses_at_end[index] for index in placed])]
    return PastStudy(
        study=row.name,
        similarity=round(share, 4),
        examples=old.ladder[-1],
        points=tuple(points[index] for index in kept),
        losses=tuple(round(losses_at_end[index], 6) for index in kept),
        good=tuple(place for place, index in enumerate(kept) if index in good),
    )


def _point(space: SearchSpace, parameters: Mapping[str, Any], sampled: Mapping[str, Any]) -> dict[str, Any]:
    """What the new space samples: of what the trainer was given, and of what only expressions read."""
    known = {**sampled, **parameters}
    return {name: known[name] for name in space.dimensions if name in known}


def _kept(losses: Sequence[float]) -> list[int]:
    """The better half of what may be kept, and as many evenly from the rest; in the order of the trials."""
    order = [int(index) for index in np.argsort(losses, kind="stable")]
    if len(order) > MOST_TRIALS:
        half = MOST_TRIALS // 2
        others = np.unique(np.linspace(half, len(order) - 1, MOST_TRIALS - half).astype(int))
        order = order[:half] + [order[index] for index in others]
    return sorted(order)


def _refused(detail: str) -> InvalidSpec:
    return InvalidSpec(detail, problems=[Problem(detail=detail, pointer="/search/warm_start")])
