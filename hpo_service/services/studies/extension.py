"""What a changed budget must leave a study: it may grow, or shrink to what is spent, but not end the study unasked."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from hpo_service.core.errors import InvalidSpec, Problem
from hpo_service.core.study_rules import Limits, exhausted
from hpo_service.services.trials.read import trial_count
from hpo_service.spec import ResolvedStudy
from hpo_service.storage.queries.dispatch import database_now
from hpo_service.storage.queries.usage import consumed_by_study
from hpo_service.storage.tables import Study

_CAPS = ("max_examples", "max_gpu_hours", "max_cost_usd", "max_wall_hours", "deadline")


def require_room_left(
    session: Session, study: Study, grown: ResolvedStudy, changed: Mapping[str, Any], waiting: int
) -> None:
    """Check the caps that are changed, each by itself. `waiting`: trials that are enqueued and not written yet.

    Raises:
        InvalidSpec: with every cap that lies below what the study has begun or spent.
    """
    problems = [*_trials(session, study, grown, changed, waiting), *_spent(session, study, grown, changed)]
    if problems:
        raise InvalidSpec("; ".join(problem.detail for problem in problems), problems=problems)


def _trials(
    session: Session, study: Study, grown: ResolvedStudy, changed: Mapping[str, Any], waiting: int
) -> list[Problem]:
    known = trial_count(session, study) + waiting
    asked = grown.budget.max_trials
    if "max_trials" not in changed or asked >= known:
        return []
    detail = (
        f"budget.max_trials {asked} is fewer than the {known} trials that study {study.name!r} has already; name "
        f"{known} to begin no more of them, or end the search with `hpo study stop {study.name}`."
    )
    return [Problem(detail=detail, pointer="/budget/max_trials")]


def _spent(session: Session, study: Study, grown: ResolvedStudy, changed: Mapping[str, Any]) -> list[Problem]:
    spent = consumed_by_study(session, study.project_id, [study.id])[study.id].spent
    now, problems = database_now(session), []
    for name in _CAPS:
        if name not in changed or getattr(grown.budget, name) is None:
            continue
        only = Limits(max_trials=grown.budget.max_trials, **{name: getattr(grown.budget, name)})
        over = exhausted(only, spent, now, study.started_at)
        if over is not None:
            detail = (
                f"budget.{name} would end study {study.name!r} at once: {over}; name more, or end the search with "
                f"`hpo study stop {study.name}`."
            )
            problems.append(Problem(detail=detail, pointer=f"/budget/{name}"))
    return problems
