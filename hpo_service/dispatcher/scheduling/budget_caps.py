"""Slices that take longer than expected are stopped where a cap is reached."""

from hpo_service.core.study_rules import StudyState
from hpo_service.dispatcher.lifecycle import study_state
from hpo_service.dispatcher.scheduling import budget_reservations
from hpo_service.dispatcher.state.live_studies import LiveStudy
from hpo_service.dispatcher.state.transaction import Context
from trainer.common.failpoints import Commit

_CAPPED = frozenset({StudyState.RUNNING, StudyState.STOPPING})


def stop_at_caps(context: Context, studies: dict[int, LiveStudy]) -> None:
    """Let studies whose running slices have reached a cap end: their slices stop with a snapshot of what they have."""
    for study in studies.values():
        if study.capped or study.state not in _CAPPED or not study.searching:
            continue
        reason = budget_reservations.reached_cap(context, study)
        if reason is None:
            continue
        if study.state is StudyState.RUNNING:
            with context.writing(Commit.CONCLUDE) as session:
                study_state.enter(session, study, StudyState.STOPPING, reason)
        study.capped = True
