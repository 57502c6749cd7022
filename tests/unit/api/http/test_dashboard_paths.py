"""Every address of the installed optuna-dashboard is known, and what may be reached of it."""

import re
from importlib.resources import files

import pytest
from optuna.storages import InMemoryStorage
from optuna_dashboard._app import create_app

from hpo_service.api.http.dashboard_paths import HIDDEN, read_path

#: what the installed version answers to GET, with whether it is reachable and names a study
GETS = {
    "/": None,
    "/dashboard<:re:(/.*)?>": "/dashboard",
    "/api/meta": "/api/meta",
    "/api/studies": "/api/studies",
    "/api/studies/<study_id:int>": "/api/studies/7",
    "/api/studies/<study_id:int>/param_importances": "/api/studies/7/param_importances",
    "/api/studies/<study_id:int>/plot/<plot_type>": None,
    "/artifacts/<study_id:int>/<artifact_id:re:[0-9a-fA-F-]+>": None,
    "/artifacts/<study_id:int>/<trial_id:int>/<artifact_id:re:[0-9a-fA-F-]+>": None,
    "/csv/<study_id:int>": "/csv/7",
    "/incompatible-rdb-schema": None,
    "/favicon.ico": "/favicon.ico",
    "/static/<filename:path>": "/static/bundle.js",
}
#: the pages of its own script; the server answers all of them with the same document
PAGES = ("analytics", "note", "preference-history", "smartSelection", "trialTable", "trials")


def test_every_upstream_route_is_known() -> None:
    """A version with another address fails here: decide whether it names a study, and add it."""
    app = create_app(InMemoryStorage())
    assert {route.rule for route in app.routes if route.method == "GET"} == set(GETS)
    assert {route.method for route in app.routes} <= {"GET", "POST", "PUT", "PATCH", "DELETE"}
    for path in filter(None, GETS.values()):
        read = read_path(path)
        assert read is not None
        assert read.study_id == (7 if "7" in path else None)
        assert read.tells_of_studies == path.startswith(("/api/studies", "/csv"))


def test_what_is_hidden_is_what_the_installed_version_offers() -> None:
    """Where it calls a button or an icon otherwise, it would be offered again."""
    script = (files("optuna_dashboard") / "public" / "bundle.js").read_text()
    for label in re.findall(r'aria-label="([^"]+)"', HIDDEN):
        assert f'"aria-label":"{label}"' in script, label
    for icon in re.findall(r'data-testid="(\w+)Icon"', HIDDEN):
        assert f'"{icon}")' in script, icon


def test_pages_of_a_study_name_it() -> None:
    for rest in ("", "/", *(f"/{page}" for page in PAGES)):
        read = read_path(f"/dashboard/studies/12{rest}")
        assert read is not None
        assert read.study_id == 12
    assert read_path("/dashboard/compare-studies") is not None


def test_what_the_script_of_the_installed_version_asks_for() -> None:
    """Its own routes: none that names a study is taken for one that does not."""

    script = (files("optuna_dashboard") / "public" / "bundle.js").read_text()
    asked = set(re.findall(r'\+"(/studies/:studyId[^"]*)"', script)) | set(
        re.findall(r"`\$\{\w\}(/studies/:studyId[^`]*)`", script)
    )
    assert len(asked) >= len(PAGES)
    for path in asked:
        read = read_path(f"/dashboard{path}".replace(":studyId", "3"))
        assert read is not None, path
        assert read.study_id == 3


@pytest.mark.parametrize(
    "path",
    [
        "/api/studies/",
        "/api/studies/0",
        "/api/studies/-1",
        "/api/studies/01",
        "/api/studies/٣",
        "/api/studies/3/",
        "/api/studies/3/../4",
        "/api/studies/3%2f",
        "/api/studies/3/plot/edf",
        "/api/studies/99999999999",
        "/api/artifacts/3/1",
        "/artifacts/3/1",
        "/api/llm/trial_filter_query",
        "/csv/3/4",
        "/dashboard/../api/studies/3",
        "/dashboard/studies/x",
        "/dashboard/studies/3/a/b",
        "/dashboard//studies/3",
        "/dashboard/anything",
        "/static/../index.html",
        "/static/.hidden",
        "/static/",
        "/incompatible-rdb-schema",
        "/favicon.ico/",
        "/api/meta\n",
        "",
    ],
)
def test_everything_else_is_none(path: str) -> None:
    assert read_path(path) is None
