"""Is the process alive, can it do its work. Public, so nothing else is told."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel
from sqlalchemy import text

from hpo_service.api.http.dependencies import SessionDependency

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """All is well."""

    status: Literal["ok"] = "ok"


@router.get("/healthz", operation_id="get_health", summary="Is the process alive?")
def get_health() -> Health:
    """Answers without looking at anything else."""
    return Health()


@router.get("/readyz", operation_id="get_readiness", summary="Does the database answer?")
def get_readiness(session: SessionDependency) -> Health:
    """503 while the database does not answer."""
    session.execute(text("SELECT 1"))
    return Health()
