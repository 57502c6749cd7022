"""Deliveries: from a promotion to a model, by jobs on the workers."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from starlette.responses import StreamingResponse

from hpo_service.api.http.bodies import JsonObject, body_of, checked
from hpo_service.api.http.dependencies import (
    PrincipalDependency,
    ProjectDependency,
    SessionDependency,
    SessionsDependency,
    StoreDependency,
)
from hpo_service.api.http.scopes import needs
from hpo_service.api.routes.promotions import PromotionName, Version, number_of
from hpo_service.api.routes.studies import IdempotencyKey, PageSize, PageToken
from hpo_service.auth.principals import Scope
from hpo_service.services.common.idempotency import Repetition
from hpo_service.services.deliveries import create as delivering
from hpo_service.services.deliveries import read as deliveries
from hpo_service.services.deliveries.schemas import DeliverRequest, DeliveryDocument
from hpo_service.services.studies.schemas import Page
from hpo_service.spec.study import NAME_PATTERN

router = APIRouter(tags=["deliveries"])

DeliveryId = Annotated[int, Path(description="`id` of the delivery.", ge=1, lt=2**63)]
ArtifactName = Annotated[
    str, Path(description="`name` of the artifact: `adapter`, `merged` or the variant.", pattern=r"^[a-z0-9_-]{1,32}$")
]


@router.post(
    "/v1/promotions/{name}/{version}/deliveries",
    operation_id="deliver_promotion",
    summary="Make a model of a promotion",
    status_code=202,
    openapi_extra=body_of("DeliverRequest"),
    dependencies=[needs(Scope.PROMOTE)],
)
def deliver_promotion(
    name: PromotionName,
    version: Version,
    document: JsonObject,
    sessions: SessionsDependency,
    caller: PrincipalDependency,
    store: StoreDependency,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> DeliveryDocument:
    """The adapter at full budget, merged and quantized if that is asked for, by jobs one after another.

    A verified adapter of the same trial is reused, unless `retrain` says otherwise. Scope `promote`.
    """
    request = checked(DeliverRequest, document)
    repetition = Repetition(caller.project_id, idempotency_key, f"deliver {name} {version}", document)
    known = repetition.once(
        sessions,
        lambda: delivering.prepare(sessions, caller.project_id, name, number_of(version), request, store),
        lambda session, found: delivering.write(session, caller, name, request, store, *found),
        status=202,
    )
    delivery = DeliveryDocument.model_validate(known)
    response.headers["Location"] = f"/v1/deliveries/{delivery.id}"
    return delivery


@router.get(
    "/v1/deliveries",
    operation_id="list_deliveries",
    summary="List deliveries, the newest first",
    dependencies=[needs(Scope.STUDY_READ)],
)
def list_deliveries(
    session: SessionDependency,
    project: ProjectDependency,
    store: StoreDependency,
    name: Annotated[str | None, Query(description="Only of this promotion.", pattern=NAME_PATTERN)] = None,
    version: Annotated[int | None, Query(description="Only of this version.", ge=1, lt=2**63)] = None,
    page_size: PageSize = 50,
    page_token: PageToken = None,
) -> Page[DeliveryDocument]:
    """With their steps and artifacts."""
    return deliveries.list_deliveries(
        session, project, store.location, name=name, version=version, page_size=page_size, page_token=page_token
    )


@router.get(
    "/v1/deliveries/{delivery}",
    operation_id="get_delivery",
    summary="Show a delivery",
    dependencies=[needs(Scope.STUDY_READ)],
)
def get_delivery(
    delivery: DeliveryId, session: SessionDependency, project: ProjectDependency, store: StoreDependency
) -> DeliveryDocument:
    """Its state, its jobs, and what they left."""
    return deliveries.delivery_document(deliveries.find(session, project, delivery), store.location)


@router.get(
    "/v1/deliveries/{delivery}/artifacts/{artifact}",
    operation_id="download_artifact",
    summary="Download an artifact of a delivery",
    response_class=Response,
    responses={200: {"description": "Its files, verified", "content": {"application/x-tar": {}}}},
    dependencies=[needs(Scope.STUDY_READ)],
)
def download_artifact(
    delivery: DeliveryId,
    artifact: ArtifactName,
    sessions: SessionsDependency,
    project: ProjectDependency,
    store: StoreDependency,
) -> StreamingResponse:
    """A tar file. Every file in it was checked against its digest before the first byte is sent."""
    with sessions.begin() as session:
        found = deliveries.find(session, project, delivery)
    archive = deliveries.open_artifact(found, artifact, store)
    headers = {
        "Content-Disposition": f'attachment; filename="delivery-{delivery}-{artifact}.tar"',
        "Content-Length": str(archive.size_bytes),
    }
    return StreamingResponse(archive.chunks(), media_type="application/x-tar", headers=headers)
