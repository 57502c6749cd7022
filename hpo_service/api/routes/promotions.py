"""`/v1/promotions`: parameters that may be used in production, by name and version."""

from hashlib import sha256
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Response

from hpo_service.api.http.addresses import VERSION
from hpo_service.api.http.bodies import JsonObject, body_of, checked
from hpo_service.api.http.dependencies import (
    PrincipalDependency,
    ProjectDependency,
    SessionDependency,
    SessionsDependency,
    SettingsDependency,
    StoreDependency,
)
from hpo_service.api.http.files import FILE_RESPONSES, ExportFormat, Strict, file_response
from hpo_service.api.http.if_match import IfMatch
from hpo_service.api.http.scopes import needs
from hpo_service.api.routes.studies import IdempotencyKey, PageSize, PageToken
from hpo_service.auth.principals import Scope
from hpo_service.core.errors import InvalidRequest
from hpo_service.services.common.exported_values import ExportedValuesDocument
from hpo_service.services.common.idempotency import Repetition
from hpo_service.services.promotions import create as promoting
from hpo_service.services.promotions import read as promotions
from hpo_service.services.promotions.schemas import (
    PromoteRequest,
    PromotionDifference,
    PromotionDocument,
    RollbackRequest,
)
from hpo_service.services.studies.schemas import Page
from hpo_service.spec.study import NAME_PATTERN

router = APIRouter(prefix="/v1/promotions", tags=["promotions"])

_LATEST = "latest"
_VERSION = r"latest|[1-9][0-9]{0,8}"
PromotionName = Annotated[str, Path(description="Name of the promotion.", pattern=NAME_PATTERN)]
Version = Annotated[
    str, Path(description="A number, or `latest`: the newest that may be used.", pattern=f"^({_VERSION})$")
]
_REVALIDATE = "no-cache"  # may be kept, and is asked for every time
_OTHER = f"{NAME_PATTERN.removesuffix('$')}@({_VERSION})$"


@router.post(
    "",
    operation_id="promote",
    summary="Promote a trial's parameters",
    status_code=201,
    openapi_extra=body_of("PromoteRequest"),
    dependencies=[needs(Scope.PROMOTE)],
)
def promote(
    document: JsonObject,
    sessions: SessionsDependency,
    caller: PrincipalDependency,
    settings: SettingsDependency,
    store: StoreDependency,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> PromotionDocument:
    """The next version of a name, if the trial was trained to its end and its snapshot verifies. Scope `promote`."""
    request = checked(PromoteRequest, document)
    repetition = Repetition(caller.project_id, idempotency_key, "promote", document)
    known = repetition.once(
        sessions,
        lambda: promoting.prepare(sessions, caller, request, store),
        lambda session, found: promoting.write(session, caller, request, *found, settings.revision or None),
        status=201,
    )
    promotion = PromotionDocument.model_validate(known)
    response.headers["Location"] = f"/v1/promotions/{promotion.name}/{promotion.version}"
    return promotion


@router.get(
    "",
    operation_id="list_promotions",
    summary="List promotions, the newest first",
    dependencies=[needs(Scope.STUDY_READ)],
)
def list_promotions(
    session: SessionDependency,
    project: ProjectDependency,
    name: Annotated[str | None, Query(description="Only versions of this name.", pattern=NAME_PATTERN)] = None,
    page_size: PageSize = 50,
    page_token: PageToken = None,
) -> Page[PromotionDocument]:
    """Every version there ever was."""
    return promotions.list_promotions(session, project, name=name, page_size=page_size, page_token=page_token)


@router.get(
    f"/{{name}}/{VERSION}",
    operation_id="get_promotion",
    summary="Show a promotion",
    dependencies=[needs(Scope.STUDY_READ)],
)
def get_promotion(
    name: PromotionName,
    version: Version,
    session: SessionDependency,
    project: ProjectDependency,
    response: Response,
) -> PromotionDocument:
    """Parameters, losses, digests, environment, bill, and who made and approved it."""
    found = promotions.promotion_document(promotions.find(session, project, name, number_of(version)))
    response.headers["ETag"] = promotions.etag(found)
    return found


@router.get(
    "/{name}/{version}/export",
    operation_id="export_promotion",
    summary="A promotion as a file",
    response_class=Response,
    responses=FILE_RESPONSES | {304: {"description": "The file that `If-None-Match` names is the current one"}},
    dependencies=[needs(Scope.STUDY_READ)],
)
def export_promotion(
    name: PromotionName,
    version: Version,
    session: SessionDependency,
    project: ProjectDependency,
    format: ExportFormat = "yaml",
    strict: Strict = False,
    if_none_match: Annotated[str | None, Header(description="`ETag` of the file that the caller has.")] = None,
) -> Response:
    """For a training job that pulls its configuration at its start; `X-Promotion` says which version it got."""
    exported = promotions.export(session, project, name, number_of(version), format, strict=strict)
    etag = f'"{sha256(exported.file.text.encode()).hexdigest()[:32]}"'
    headers = {"ETag": etag, "X-Promotion": exported.promotion, "Cache-Control": _REVALIDATE}
    if if_none_match is not None and _has(if_none_match, etag):
        return Response(status_code=304, headers=headers)
    return file_response(exported.file, headers)


@router.get(
    "/{name}/{version}/values",
    operation_id="list_promotion_values",
    summary="The values of such a file, one by one",
    dependencies=[needs(Scope.STUDY_READ)],
)
def list_promotion_values(
    name: PromotionName,
    version: Version,
    session: SessionDependency,
    project: ProjectDependency,
    format: ExportFormat = "yaml",
    strict: Strict = False,
) -> ExportedValuesDocument:
    """For those who merge them into a file that they own: each value says what it is about."""
    return promotions.values(session, project, name, number_of(version), format, strict=strict)


@router.get(
    "/{name}/{version}/diff",
    operation_id="compare_promotions",
    summary="Compare two promotions",
    dependencies=[needs(Scope.STUDY_READ)],
)
def compare_promotions(
    name: PromotionName,
    version: Version,
    session: SessionDependency,
    project: ProjectDependency,
    other: Annotated[str, Query(description="The later one: `NAME@VERSION` or `NAME@latest`.", pattern=_OTHER)],
) -> PromotionDifference:
    """Every value that differs."""
    second, _, number = other.partition("@")
    return promotions.compare(session, project, (name, number_of(version)), (second, number_of(number)))


@router.post(
    "/{name}:rollback",
    operation_id="roll_back_promotion",
    summary="Go back to an earlier version",
    status_code=201,
    openapi_extra=body_of("RollbackRequest"),
    dependencies=[needs(Scope.PROMOTE)],
)
def roll_back(
    name: PromotionName,
    document: JsonObject,
    session: SessionDependency,
    caller: PrincipalDependency,
    if_match: IfMatch = None,
    idempotency_key: IdempotencyKey = None,
) -> PromotionDocument:
    """A new version that repeats the earlier one; nothing is removed. Scope `promote`.

    `If-Match` is the `ETag` of the version in use: whoever was faster is not rolled back as well.
    """
    request = checked(RollbackRequest, document)
    repetition = Repetition(caller.project_id, idempotency_key, f"roll back {name}", document)
    if (known := repetition.answer(session)) is not None:
        return PromotionDocument.model_validate(known)
    made = promotions.roll_back(session, caller, name, request.version, request.note, if_match=if_match)
    repetition.remember(session, 201, made.model_dump(mode="json"))
    return made


@router.post(
    "/{name}/{version}:approve",
    operation_id="approve_promotion",
    summary="Approve a promotion",
    dependencies=[needs(Scope.APPROVE)],
)
def approve(
    name: PromotionName,
    version: Annotated[str, Path(description="Its number.", pattern=r"^[1-9][0-9]{0,8}$")],
    session: SessionDependency,
    caller: PrincipalDependency,
) -> PromotionDocument:
    """From then on it may be used. Scope `approve`, and another key than the one that promoted."""
    return promotions.approve(session, caller, name, int(version))


def number_of(version: str) -> int | None:
    """Number of a version; None: the latest."""
    return None if version == _LATEST else int(version)


def _has(if_none_match: str, etag: str) -> bool:
    """RFC 9110: `*`, or one of a list, weak or strong."""
    if len(if_none_match) > 4096:
        raise InvalidRequest(f"If-None-Match has {len(if_none_match)} characters; at most 4096 are read.")
    return if_none_match.strip() == "*" or etag in [one.strip().removeprefix("W/") for one in if_none_match.split(",")]
