"""A span for each attempt of a slice, once its end is committed. Without a tracer they go nowhere."""

import time
from dataclasses import dataclass

from opentelemetry import trace
from opentelemetry.trace import Status, StatusCode
from sqlalchemy.orm import Session

from hpo_service.core.study_rules import Cause
from hpo_service.dispatcher.state.live_studies import LiveSlice, LiveStudy
from trainer.spec import Outcome, SliceResult

_ENDED = "ended attempts"


@dataclass(frozen=True, kw_only=True)
class _Ended:
    begun_ns: int
    ended_ns: int
    outcome: Outcome
    message: str
    attributes: dict[str, str | int | float]


def note(session: Session, study: LiveStudy, piece: LiveSlice, result: SliceResult, cause: Cause | None) -> None:
    """The attempt has ended; it is told once the transaction is committed."""
    now = time.time_ns()
    attributes: dict[str, str | int | float] = {
        "hpo.study": study.optuna_name,
        "hpo.study_id": study.id,
        "hpo.trial_number": piece.trial_number,
        "hpo.slice_id": piece.id,
        "hpo.attempt": piece.attempt,
        "hpo.until_examples": piece.until_examples,
        "hpo.outcome": str(result.outcome),
        "hpo.device": result.device,
        "hpo.train_seconds": result.usage.train_seconds,
        "hpo.evaluate_seconds": result.usage.evaluate_seconds,
    }
    if cause is not None:
        attributes["hpo.cause"] = str(cause)
    ended = _Ended(
        begun_ns=now - round((time.monotonic() - piece.begun_at) * 1e9),
        ended_ns=now,
        outcome=result.outcome,
        message=result.message,
        attributes=attributes,
    )
    session.info.setdefault(_ENDED, []).append(ended)


def write(session: Session) -> None:
    """The transaction is committed."""
    tracer = trace.get_tracer(__name__)
    ended: list[_Ended] = session.info.pop(_ENDED, [])
    for one in ended:
        span = tracer.start_span("slice", start_time=one.begun_ns, attributes=one.attributes)
        if one.outcome is not Outcome.DONE:
            span.set_status(Status(StatusCode.ERROR, one.message))
        span.end(one.ended_ns)
