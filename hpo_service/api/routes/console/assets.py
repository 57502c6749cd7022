"""The console's script and style sheet. Their addresses change with their content, so browsers may keep them."""

from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files

from fastapi import APIRouter, Response

from hpo_service.api.http.scopes import needs
from hpo_service.auth.principals import Scope
from hpo_service.console.frame import Assets
from hpo_service.core.errors import NotFound
from hpo_service.reports.looks import PLOTS

router = APIRouter(dependencies=[needs(Scope.STUDY_READ)])

_KEEP = "private, max-age=31536000, immutable"
_SCRIPT, _STYLE = "console.js", "console.css"


@dataclass(frozen=True)
class _Asset:
    content: bytes
    media_type: str

    @property
    def digest(self) -> str:
        """Part of its address."""
        return sha256(self.content).hexdigest()[:16]


@cache
def _assets() -> dict[str, _Asset]:
    folder = files("hpo_service.api.routes.console") / "static"
    script, style = ((folder / name).read_text(encoding="utf-8") for name in (_SCRIPT, _STYLE))
    return {
        _SCRIPT: _Asset(script.encode(), "text/javascript"),
        _STYLE: _Asset((PLOTS + style).encode(), "text/css"),
    }


def assets() -> Assets:
    """Addresses for pages."""
    script, style = (f"/console/assets/{_assets()[name].digest}/{name}" for name in (_SCRIPT, _STYLE))
    return Assets(script=script, style=style)


@router.get("/console/assets/{digest}/{name}")
def get_asset(digest: str, name: str) -> Response:
    """One of them. An address of an earlier version is not found: its page is older than the service."""
    asset = _assets().get(name)
    if asset is None or asset.digest != digest:
        raise NotFound("There is nothing at this address; load the page again.")
    return Response(asset.content, media_type=asset.media_type, headers={"Cache-Control": _KEEP})
