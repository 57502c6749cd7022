"""All trials of a study are computed in one dtype: what `model.dtype: auto` is on the worker of its first slice."""

from sqlalchemy.orm import Session

from hpo_service.core.messages import EventKind
from hpo_service.dispatcher.state.assignments import Fleet
from hpo_service.dispatcher.state.live_studies import LiveStudy
from hpo_service.storage.queries import dispatch
from trainer.spec import AUTO, ModelSpec, Ready


def is_open(study: LiveStudy) -> bool:
    """Whether no slice has been given to a worker yet that would say it."""
    return study.resolved.model.dtype == AUTO


def pin(session: Session, study: LiveStudy, ready: Ready) -> None:
    """Resolve it for good as the worker does that said this when it was ready."""
    study.resolved = study.resolved.pinned(ready.auto_dtype, ready.device)
    dispatch.update_study(session, study.id, resolved=study.resolved.model_dump(mode="json"))
    payload = {
        "dtype": ready.auto_dtype,
        "device": ready.device,
        "message": f"all its trials are computed in {ready.auto_dtype}, which is what auto is on {ready.device}",
    }
    dispatch.add_event(session, study.project_id, study.id, EventKind.STUDY_DTYPE, payload)


def unfit(fleet: Fleet, study: LiveStudy) -> frozenset[str]:
    """The workers that would resolve the study's dtype otherwise, as far as is known: they get none of its slices.

    Where the spec names the dtype, every worker will do.
    """
    return others(fleet, study.resolved.model) if study.resolved.dtype_device else frozenset()


def others(fleet: Fleet, model: ModelSpec) -> frozenset[str]:
    """The workers on which auto is another dtype than the model's."""
    return frozenset(worker for worker, ready in fleet.ready.items() if ready.auto_dtype != model.dtype)
