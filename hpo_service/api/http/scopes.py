"""Which scope a route wants. Every route that is not public declares exactly one."""

from typing import Any

from fastapi import Request, Security
from fastapi.openapi.models import HTTPBase
from fastapi.security import SecurityScopes
from fastapi.security.base import SecurityBase

from hpo_service.auth.principals import Principal, Scope


class _ApiKey(SecurityBase):
    """Looks at the scopes of whom `Guard` let in; the OpenAPI document says what each route wants."""

    model = HTTPBase(scheme="bearer", description="An API key: `hpo_key_<id>_<secret>`.")
    scheme_name = "apiKey"

    async def __call__(self, request: Request, wanted: SecurityScopes) -> None:
        principal: Principal | None = request.state.principal
        if principal is None:  # the token of /metrics, which opens nothing else
            return
        for scope in wanted.scopes:
            principal.require(Scope(scope))


_API_KEY = _ApiKey()


def needs(scope: Scope) -> Any:  # noqa: ANN401 (FastAPI's own type of it)
    """One of a route's `dependencies`: callers without the scope get 403, before anything else of them is read."""
    return Security(_API_KEY, scopes=[str(scope)])
