"""Memory that ran out on a worker group: its slice is tried again once, on a fresh group, with half the micro-batch.

On one device the engine does that by itself. A rank whose memory runs out in a step leaves the others waiting in a
collective, so here the group ends, and what its trial may take at once is kept at the trial from then on.
"""

from sqlalchemy.orm import Session

from hpo_service.core.messages import EventKind
from hpo_service.dispatcher.state.live_studies import LiveSlice, LiveStudy
from hpo_service.storage.queries import attempts, dispatch
from trainer.spec import Notice, Outcome, SliceResult

#: the attribute of a trial that says how many examples a rank takes at once, once memory ran out with twice as many
_MICRO_BATCH = "micro_batch"


def micro_batch(study: LiveStudy, trial_number: int) -> int | None:
    """The most examples that a rank may take of the trial at once; None: as its spec says."""
    known: int | None = study.trial(trial_number).user_attrs.get(_MICRO_BATCH)
    return known


def half(study: LiveStudy, piece: LiveSlice, result: SliceResult) -> int | None:
    """The micro-batch with which the slice is to be tried again; None if memory is not the matter, or it was halved."""
    tried = result.micro_batch
    if result.outcome is not Outcome.OOM or study.resolved.training.ranks == 1 or tried is None or tried == 1:
        return None
    return tried // 2 if micro_batch(study, piece.trial_number) is None else None


def keep(session: Session, study: LiveStudy, piece: LiveSlice, result: SliceResult, smaller: int) -> None:
    """From now on the trial takes no more than `smaller` at once. With the event that tells both."""
    study.storage.set_trial_user_attr(piece.optuna_trial_id, _MICRO_BATCH, smaller)
    predicted = result.predicted_memory_bytes or 0
    message = (
        f"out of memory on a group of {study.resolved.training.ranks} with {_tried(result.micro_batch, predicted)}; "
        f"the slice is tried again with {smaller} at the same effective batch"
    )
    values = {"micro_batch": float(result.micro_batch or 0), "predicted_bytes": float(predicted)}
    notice = Notice(kind="oom_halved", values=values, message=message)
    payload = notice.model_dump(mode="json")
    dispatch.add_event(session, study.project_id, study.id, EventKind.TRIAL_NOTICE, payload, piece.trial_number)


def with_evidence(session: Session, study: LiveStudy, piece: LiveSlice, result: SliceResult) -> SliceResult:
    """The result that ends the trial, with all micro-batches that memory ran out with and what was predicted."""
    if result.outcome is not Outcome.OOM or micro_batch(study, piece.trial_number) is None:
        return result
    tried = attempts.memory_tried(session, study.project_id, study.id, piece.trial_number)
    listed = " and with ".join(_tried(*one) for one in tried)
    return result.model_copy(update={"message": f"{result.message}; memory ran out with {listed}"})


def _tried(examples: int | None, predicted_bytes: int | None) -> str:
    predicted = "" if not predicted_bytes else f" (predicted {predicted_bytes / 2**30:.2f} GiB)"
    return f"micro-batch {examples}{predicted}"
