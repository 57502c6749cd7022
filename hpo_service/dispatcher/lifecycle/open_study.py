"""Opening a study in Optuna's tables."""

from optuna.study import StudyDirection
from sqlalchemy.orm import Session

from hpo_service.core.messages import EventKind
from hpo_service.dispatcher.state.live_studies import LiveStudy
from hpo_service.storage.queries import dispatch


def open_study(session: Session, study: LiveStudy) -> None:
    """Give the study its place in Optuna's tables; trials may follow."""
    objectives = study.resolved.search.objectives
    study.optuna_study_id = study.storage.create_new_study(
        [StudyDirection[objective.goal.upper()] for objective in objectives], study.optuna_name
    )
    names = [objective.name for objective in objectives]
    study.storage.set_study_system_attr(study.optuna_study_id, "study:metric_names", names)
    dispatch.update_study(session, study.id, optuna_study_id=study.optuna_study_id)
    event = {"state": str(study.state), "message": study.message}
    dispatch.add_event(session, study.project_id, study.id, EventKind.STUDY_STATE, event)
