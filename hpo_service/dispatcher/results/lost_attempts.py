"""What is lost with a worker that ended, why, and whose doing it may have been."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from hpo_service.core.study_rules import COUNTED_CAUSES, Cause
from hpo_service.dispatcher.workers.progress_timeouts import Liveness
from hpo_service.executors.base import Token, WorkerGone


@dataclass(frozen=True, kw_only=True)
class Loss:
    """An attempt that cannot speak for itself. `alone`: nothing else ran on the worker, which it may have ended.

    So many were `sharing` the worker.
    """

    token: Token
    reason: str
    cause: Cause
    alone: bool
    sharing: int = 1


def losses(gone: WorkerGone, slices: Sequence[Token], jobs: Collection[Token], liveness: Liveness) -> list[Loss]:
    """Of the slices and jobs that the worker held. A slice that had not begun is not to blame, if another one had."""
    begun = [token for token in slices if liveness.has_begun(token)] or list(slices)
    alone = len(begun) == 1
    found = [Loss(token=token, reason=gone.reason, cause=gone.cause, alone=False) for token in jobs]
    for token in slices:
        if token in begun:
            reason = f"{gone.reason}; {liveness.last_words(token)}"
            found.append(Loss(token=token, reason=reason, cause=gone.cause, alone=alone, sharing=len(begun)))
        else:
            cause = Cause.NEVER_SENT if gone.cause in COUNTED_CAUSES else gone.cause
            reason = f"it had not begun on worker {gone.worker}, which ended"
            found.append(Loss(token=token, reason=reason, cause=cause, alone=False))
    return found
