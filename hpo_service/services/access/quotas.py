"""What projects may use at most. Studies are refused here; the dispatcher lets work wait for the rest."""

import json
from collections.abc import Mapping
from hashlib import sha256

from sqlalchemy.orm import Session

from hpo_service.auth.principals import Principal
from hpo_service.core.errors import Forbidden, NotFound, QuotaExceeded
from hpo_service.services.access.quota_schemas import QuotaDocument, QuotaLimits, QuotaUse, SetQuotaRequest
from hpo_service.services.common.if_match import require_match
from hpo_service.storage.queries import projects, tenants
from hpo_service.storage.queries.tenants import Standing
from hpo_service.storage.tables import DEFAULT_PROJECT_ID


def show_quota(session: Session, caller: Principal, name: str) -> QuotaDocument:
    """Of any project for admins of project default, of their own for others. Raises NotFound."""
    return _document(tenants.standing(session, _project_id(session, caller, name)))


def replace_quota(
    session: Session, caller: Principal, name: str, request: SetQuotaRequest, *, if_match: str
) -> QuotaDocument:
    """Set all limits.

    Raises:
        NotFound: no such project, or one that is not the caller's business.
        Forbidden: the caller does not belong to project default.
        PreconditionFailed: `if_match` names other limits than the present ones.
    """
    project_id = _project_id(session, caller, name)
    if caller.project_id != DEFAULT_PROJECT_ID:
        raise Forbidden("quotas are set with a key of project default; this key belongs to another one.")
    tenants.set_limits(session, project_id, {})
    tenants.find_quota(session, project_id, lock=True)
    require_match(if_match, etag(show_quota(session, caller, name)), f"the quota of project {name}")
    tenants.set_limits(session, project_id, request.model_dump())
    return show_quota(session, caller, name)


def change_quota(session: Session, project_id: int, limits: Mapping[str, float | None]) -> QuotaDocument:
    """Set the limits that are named, None: none. For who has the database at hand."""
    tenants.set_limits(session, project_id, limits)
    return _document(tenants.standing(session, project_id))


def list_quotas(session: Session) -> dict[str, QuotaDocument]:
    """Of every project, by name."""
    return {standing.project: _document(standing) for standing in tenants.standings(session)}


def etag(quota: QuotaDocument) -> str:
    """Changes with the limits, and with nothing else."""
    canonical = json.dumps([quota.project, quota.limits.model_dump()], sort_keys=True)
    return f'"{sha256(canonical.encode()).hexdigest()[:20]}"'


def require_room(session: Session, project_id: int) -> None:
    """Whether the project may have another study. Those who ask wait for each other until the transaction ends.

    Raises:
        QuotaExceeded: it has as many as it may, or stores as much as it may.
    """
    if (reason := refusal(session, project_id, lock=True)) is not None:
        raise QuotaExceeded(reason)


def refusal(session: Session, project_id: int, *, lock: bool = False) -> str | None:
    """Why the project may not have another study; None if it may."""
    quota = tenants.find_quota(session, project_id, lock=lock)
    if quota is None:
        return None
    if quota.studies is not None and (present := tenants.open_studies(session, project_id)) >= quota.studies:
        name = projects.name_of(session, project_id)
        return (
            f"project {name} has {present} studies that have not ended and may have {quota.studies}; let one end, "
            f"cancel one with `hpo study cancel STUDY`, or ask an operator for `hpo project quota {name} --studies N`."
        )
    if quota.stored_bytes is not None and (quota.used_bytes or 0) >= quota.stored_bytes:
        name = projects.name_of(session, project_id)
        return (
            f"the snapshots of project {name} take {quota.used_bytes or 0} bytes and may take {quota.stored_bytes}; "
            f"delete ended studies with `hpo study delete STUDY`, or ask an operator for `hpo project quota {name} "
            "--stored-bytes N`."
        )
    return None


def _project_id(session: Session, caller: Principal, name: str) -> int:
    project = projects.find(session, name)
    if caller.project_id not in (DEFAULT_PROJECT_ID, project.id):
        raise NotFound(projects.absent(name))
    return project.id


def _document(standing: Standing) -> QuotaDocument:
    limits = standing.limits
    return QuotaDocument(
        project=standing.project,
        limits=QuotaLimits(
            parallel_gpus=limits.parallel_gpus,
            gpu_hours_month=limits.gpu_hours_month,
            studies=limits.studies,
            stored_bytes=limits.stored_bytes,
        ),
        used=QuotaUse(
            parallel_gpus=standing.devices,
            gpu_hours_month=standing.device_seconds_month / 3600,
            studies=standing.studies,
            stored_bytes=standing.stored_bytes,
        ),
    )
