"""Counting, in the row of a slice or a job, the attempts that were lost or failed through no fault of its trial."""

from typing import Any

from sqlalchemy import func
from sqlalchemy.orm import InstrumentedAttribute

from hpo_service.core.study_rules import COUNTED_CAUSES, Cause


def counted(
    failures: InstrumentedAttribute[int], by_cause: InstrumentedAttribute[dict[str, Any]], cause: Cause | None
) -> dict[str, Any]:
    """The columns' new values after one attempt more; none if the attempt had no such cause."""
    if cause is None:
        return {}
    number = func.coalesce(by_cause[str(cause)].as_integer(), 0) + 1
    return {
        "failures": failures + int(cause in COUNTED_CAUSES),
        "failures_by_cause": by_cause.op("||")(func.jsonb_build_object(str(cause), number)),
    }
