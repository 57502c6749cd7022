"""What all pages of the console ask for and answer with."""

from typing import Annotated

from fastapi import Depends
from starlette.responses import HTMLResponse

from hpo_service.api.console.assets import assets
from hpo_service.api.dependencies import PrincipalDependency
from hpo_service.markup import Markup
from hpo_service.pages.frame import POLICY, Assets, Viewer


def _viewer(caller: PrincipalDependency) -> Viewer:
    return Viewer(scopes=caller.scopes)


ViewerDependency = Annotated[Viewer, Depends(_viewer)]
AssetsDependency = Annotated[Assets, Depends(assets)]


def answer(page: Markup) -> HTMLResponse:
    """A page that runs our script and nothing else."""
    return HTMLResponse(page, headers={"Content-Security-Policy": POLICY})
