"""The HTTP service as one object."""

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from sqlalchemy import Engine

from hpo_service.api.http import problems
from hpo_service.api.http.audit_trail import AuditTrail
from hpo_service.api.middleware.guard import Guard
from hpo_service.api.middleware.rate_limits import AddressLimits, KeyLimits
from hpo_service.api.middleware.request_log import TELEMETRY, RequestLog
from hpo_service.api.middleware.safe_headers import SafeHeaders
from hpo_service.api.middleware.stream_limits import OpenStreams
from hpo_service.api.routes import (
    audit,
    confirmation,
    console,
    dashboard,
    data_checks,
    deliveries,
    documentation,
    events,
    health,
    insight,
    keys,
    login,
    metrics,
    path_checks,
    projects,
    promotions,
    quotas,
    reports,
    search_spaces,
    slices,
    studies,
    suggestion,
    trials,
    workers,
)
from hpo_service.auth.oidc import setup as oidc_setup
from hpo_service.core.settings import Settings
from hpo_service.observability.metrics import Metrics
from hpo_service.services.insights.cache import kept_insights
from hpo_service.storage.database import session_factory
from hpo_service.storage.database.tenancy import ProjectSessions

_DESCRIPTION = (
    "Hyperparameter search for LoRA fine-tuning. A study is posted, searched by a dispatcher and its workers, and ends "
    "with parameters that production can use as they are. Changes are accepted (202) and carried out soon after; "
    "errors are application/problem+json with a stable code and the JSON pointers of the fields."
)
_TAGS = [
    {"name": "studies", "description": "Create studies, look at them, steer them."},
    {"name": "trials", "description": "What was tried, and what it left behind."},
    {"name": "insight", "description": "Why the search did what it did, and what mattered."},
    {"name": "results", "description": "The best parameters, ready for production."},
    {"name": "promotions", "description": "Parameters that may be used in production, by name and version."},
    {"name": "deliveries", "description": "Models made of promotions."},
    {"name": "events", "description": "What happens, as it happens."},
    {"name": "data checks", "description": "What is wrong with the data, before a GPU is used."},
    {"name": "workers", "description": "Who does the work, and what it sees."},
    {"name": "search spaces", "description": "Spaces that ship with the service, and the schema of a study."},
    {"name": "keys", "description": "Who may do what in a project."},
    {"name": "projects", "description": "Who is kept apart from whom."},
    {"name": "audit", "description": "Who changed what."},
    {"name": "login", "description": "Let a browser in."},
    {"name": "health", "description": "For load balancers; the only addresses that need no credentials."},
]


def create_app(settings: Settings, engine: Engine, *, with_dashboard: bool = True) -> FastAPI:
    """The service over a prepared database. optuna-dashboard runs while the application's lifespan does."""
    sessions = session_factory(engine)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        if not with_dashboard:
            yield {}
            return
        async with dashboard.running_dashboard(settings) as state:
            yield state

    app = FastAPI(
        title="HPO service",
        version=version("hpo-service"),
        description=_DESCRIPTION,
        openapi_tags=_TAGS,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        telemetry=TELEMETRY,
        responses=problems.RESPONSES,
    )
    app.state.unconfined_sessions = sessions
    app.state.project_sessions = ProjectSessions(engine, kept_insights())
    app.state.settings = settings
    app.state.store = settings.snapshot_store()
    app.state.stopping = threading.Event()
    app.state.open_streams = OpenStreams()
    app.state.metrics = Metrics(engine, revision=settings.revision)
    problems.install(app)
    app.include_router(studies.validation)
    has_oidc = _add_oidc(app, settings)
    for module in (
        suggestion,
        studies,
        confirmation,
        insight,
        reports,
        data_checks,
        path_checks,
        trials,
        promotions,
        deliveries,
        keys,
        projects,
        quotas,
        audit,
        slices,
        workers,
        events,
        search_spaces,
        login,
        health,
        metrics,
        console,
        documentation,
        dashboard,
    ):
        app.include_router(module.router)
    documentation.complete_openapi(app)
    app.add_middleware(KeyLimits, per_second=settings.requests_per_second)
    app.add_middleware(Guard, sessions=sessions, metrics_token=settings.metrics_token, has_oidc=has_oidc)
    app.add_middleware(AuditTrail, sessions=sessions)
    app.add_middleware(AddressLimits, per_minute=settings.failed_logins_per_minute)
    app.add_middleware(RequestLog, observe=app.state.metrics.observe_request)
    app.add_middleware(SafeHeaders)
    return app


def _add_oidc(app: FastAPI, settings: Settings) -> bool:
    """Let browsers log in with an identity provider, if there is one. Raises SetupError if it is half configured."""
    if settings.oidc_issuer is None:
        return False
    app.state.oidc_provider, app.state.oidc_rules = oidc_setup.connect(settings)
    from hpo_service.api.routes import oidc  # its library is an extra, which is there now

    app.include_router(oidc.router)
    return True
