"""What the API answers of quotas, and how they are asked for."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from hpo_service.services.common.schemas import Document

_MOST = 10**15
Count = Annotated[int, Field(strict=True, ge=0, le=_MOST)]
Hours = Annotated[float, Field(strict=True, ge=0, le=_MOST, allow_inf_nan=False)]


class SetQuotaRequest(BaseModel):
    """All limits of a project; what is left out or null is not limited."""

    model_config = ConfigDict(extra="forbid")

    parallel_gpus: Annotated[Count | None, Field(description="Devices that its slices and trainings hold.")] = None
    gpu_hours_month: Annotated[Hours | None, Field(description="Of a calendar month (UTC).")] = None
    studies: Annotated[Count | None, Field(description="Studies that have not ended.")] = None
    stored_bytes: Annotated[Count | None, Field(description="Of snapshots.")] = None


class QuotaLimits(Document):
    """null: as much as there is."""

    parallel_gpus: int | None
    gpu_hours_month: float | None
    studies: int | None
    stored_bytes: int | None


class QuotaUse(Document):
    """What the project uses of each."""

    parallel_gpus: int
    gpu_hours_month: float
    """Of what has ended in this month."""
    studies: int
    stored_bytes: int | None
    """When the snapshots were last looked at; null before that."""


class QuotaDocument(Document):
    """What a project may use at most."""

    project: str
    limits: QuotaLimits
    used: QuotaUse
