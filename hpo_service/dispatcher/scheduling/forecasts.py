"""What running studies will cost and when they end, kept in their rows."""

import time
from typing import Any

from sqlalchemy.orm import Session

from hpo_service.core.study_rules import StudyState
from hpo_service.dispatcher.scheduling import budget_reservations
from hpo_service.dispatcher.state.live_studies import LiveStudy
from hpo_service.dispatcher.state.transaction import Context
from hpo_service.search.forecast import Forecast, Range, capped, forecast, remaining_examples
from hpo_service.spec.estimate import expected_trials
from hpo_service.storage.queries import dispatch

_EVERY_SECONDS = 5.0


def write_due(session: Session, context: Context, studies: dict[int, LiveStudy]) -> None:
    """Write the forecasts that are older than a few seconds."""
    now = time.monotonic()
    for study in studies.values():
        if study.state is StudyState.RUNNING and study.searching and now > study.forecast_at + _EVERY_SECONDS:
            study.forecast_at = now
            found = of_study(context, study)
            if found is not None:
                dispatch.update_study(session, study.id, forecast=_document(context, study, found))


def of_study(context: Context, study: LiveStudy) -> Forecast | None:
    """From the expected number of trials at each rung, those that were there, and the pace so far."""
    resolved, roster = study.resolved, study.roster()
    if resolved.confirmation is not None:
        return None
    expected = expected_trials(resolved, len(resolved.ladder))
    reached = [len(roster.ranked(rung)) for rung in resolved.ladder]
    remaining = remaining_examples(expected, reached, resolved.ladder)
    paces = [] if study.deterministic else [trial.cost_per_example for trial in roster if trial.cost_per_example]
    found = forecast(
        resolved.search.strategy,
        remaining,
        study.spent,
        paces,
        devices=_slices_at_once(context, study) * resolved.training.ranks,
        usd_per_second=budget_reservations.usd_per_second(context, study),
        now=context.clock.now(),
    )
    return None if found is None else capped(found, resolved.limits(), study.started_at)


def _slices_at_once(context: Context, study: LiveStudy) -> int:
    """As many as run now: what the share of this study among the others is, too."""
    return max(1, len(study.running()))


def _document(context: Context, study: LiveStudy, found: Forecast) -> dict[str, Any]:
    return {
        "examples": _range(found.examples),
        "gpu_hours": _range(found.gpu_hours),
        "usd": _range(found.usd),
        "earliest": found.earliest.isoformat(),
        "ends_at": found.ends_at.isoformat(),
        "latest": found.latest.isoformat(),
        "slices_at_once": _slices_at_once(context, study),
        "made_at": context.clock.now().isoformat(),
    }


def _range(found: Range) -> dict[str, float]:
    return {"low": found.low, "expected": found.expected, "high": found.high}
