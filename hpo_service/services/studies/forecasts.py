"""What a running study will have cost in the end, as the API shows it."""

from datetime import datetime

from hpo_service.core.study_rules import StudyState
from hpo_service.services.common.schemas import Document
from hpo_service.storage.tables import Study


class RangeDocument(Document):
    """What is expected, and between what it was in nine of ten simulated studies."""

    low: float
    expected: float
    high: float


class ForecastDocument(Document):
    """In all, what is spent already included; the confirmation is not. It ends where a cap does."""

    examples: RangeDocument
    gpu_hours: RangeDocument
    usd: RangeDocument
    earliest: datetime
    ends_at: datetime
    latest: datetime
    slices_at_once: int
    """It goes on with as many as ran when the forecast was made."""
    made_at: datetime


def forecast_document(study: Study) -> ForecastDocument | None:
    """None before anything was measured, and while the study does not run."""
    if StudyState(study.state) is not StudyState.RUNNING or not study.forecast:
        return None
    return ForecastDocument.model_validate(study.forecast)
