"""What an attempt took that cannot say so itself, since its worker was lost. An estimate."""

from sqlalchemy.orm import Session

from hpo_service.core.study_rules import Cause
from hpo_service.dispatcher.state.live_studies import LiveSlice, LiveStudy
from hpo_service.storage.queries import attempts
from trainer.spec import Outcome, SliceResult, Usage

_MAY_BE_SILENT = frozenset({Outcome.LOST, Outcome.INFRA_ERROR, Outcome.OOM})


def estimated(
    session: Session, study: LiveStudy, piece: LiveSlice, result: SliceResult, *, cause: Cause | None, sharing: int
) -> SliceResult:
    """The result with the time for which the attempt held its devices, if nobody measured it.

    That is from its dispatch until now, without what it waited on its worker. What `sharing` slices had a worker for
    in turn, each of them is booked an equal part of.
    """
    silent = result.outcome in _MAY_BE_SILENT and not result.usage.total_seconds()
    if not silent or cause is Cause.NEVER_SENT:
        return result
    held = attempts.held(session, (result.slice_id, result.attempt))
    seconds = max(0.0, held.seconds - (piece.queued_seconds or 0.0)) / sharing
    usage = Usage(lost_seconds=seconds, devices=study.resolved.training.ranks)
    return result.model_copy(update={"usage": usage, "device": result.device or held.device})
