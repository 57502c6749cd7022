"""What all pages of the console ask for and answer with."""

from typing import Annotated

from fastapi import Depends
from starlette.responses import HTMLResponse

from hpo_service.api.http.dependencies import PrincipalDependency
from hpo_service.api.routes.console.assets import assets
from hpo_service.console.frame import POLICY, Assets, Viewer
from hpo_service.formatting.html import Markup


def _viewer(caller: PrincipalDependency) -> Viewer:
    return Viewer(scopes=caller.scopes)


ViewerDependency = Annotated[Viewer, Depends(_viewer)]
AssetsDependency = Annotated[Assets, Depends(assets)]


def answer(page: Markup) -> HTMLResponse:
    """A page that runs our script and nothing else."""
    return HTMLResponse(page, headers={"Content-Security-Policy": POLICY})
