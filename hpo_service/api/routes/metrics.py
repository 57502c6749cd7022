"""`/metrics`: what Prometheus reads."""

from fastapi import APIRouter, Request
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.responses import Response

from hpo_service.api.http.scopes import needs
from hpo_service.auth.principals import Scope
from hpo_service.core.errors import NotFound
from hpo_service.observability.metrics import Metrics

router = APIRouter(include_in_schema=False, dependencies=[needs(Scope.ADMIN)])


@router.get("/metrics")
def get_metrics(request: Request) -> Response:
    """For `HPO_METRICS_TOKEN` and for admins of the first project: the figures are those of all projects."""
    principal = request.state.principal
    if principal is not None and not principal.in_default_project:
        raise NotFound("There is nothing at this address.")
    metrics: Metrics = request.app.state.metrics
    return Response(metrics.exposition(), media_type=CONTENT_TYPE_PLAIN_0_0_4)
