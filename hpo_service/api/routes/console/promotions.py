"""`/promotions`: parameters that may be used in production, by name and version."""

from typing import Annotated

from fastapi import APIRouter, Path
from starlette.responses import HTMLResponse

from hpo_service.api.http.dependencies import ProjectDependency, SessionDependency, StoreDependency
from hpo_service.api.http.scopes import needs
from hpo_service.api.routes.console.answers import AssetsDependency, ViewerDependency, answer
from hpo_service.api.routes.promotions import PromotionName
from hpo_service.api.routes.studies import PageToken
from hpo_service.auth.principals import Scope
from hpo_service.console.promotions import promotion_page, promotions_page
from hpo_service.services.deliveries import read as deliveries
from hpo_service.services.promotions import read as promotions

router = APIRouter(dependencies=[needs(Scope.STUDY_READ)])

_SHOWN = 50
_DELIVERIES_SHOWN = 10


@router.get("/promotions")
def show_promotions(
    session: SessionDependency,
    project: ProjectDependency,
    assets: AssetsDependency,
    page_token: PageToken = None,
) -> HTMLResponse:
    """All versions of all names."""
    found = promotions.list_promotions(session, project, name=None, page_size=_SHOWN, page_token=page_token)
    return answer(promotions_page(found.items, found.next_page_token, assets))


@router.get("/promotions/{name}/{version}")
def show_promotion(
    name: PromotionName,
    version: Annotated[int, Path(ge=1, lt=10**9)],
    session: SessionDependency,
    project: ProjectDependency,
    viewer: ViewerDependency,
    assets: AssetsDependency,
    store: StoreDependency,
) -> HTMLResponse:
    """One version."""
    found = promotions.promotion_document(promotions.find(session, project, name, version))
    latest = promotions.latest_version(session, project, name)
    made = deliveries.list_deliveries(
        session, project, store.location, name=name, version=version, page_size=_DELIVERIES_SHOWN, page_token=None
    )
    return answer(promotion_page(found, latest, made, viewer, assets))
