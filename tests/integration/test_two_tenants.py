"""Two teams share one service: neither sees anything of the other, whatever they ask (invariant I11)."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hpo_service.local.postgres import EmbeddedPostgres
from tests.tenants import (
    SHARED,
    Service,
    ask,
    foreign_names,
    open_engine,
    read_status,
    require_absent,
    require_nothing_of,
    shake,
)


@pytest.fixture
def service(database_url: str, tmp_path: Path) -> Iterator[Service]:
    """Both teams have a study of the shared name and one of their own, which have ended and were promoted."""
    engine = open_engine(database_url)
    service = Service(engine, tmp_path.resolve())
    for team in service.teams:
        for name in (SHARED, f"{team.canary}-0"):
            assert service.create(team, name).status_code == 201
    service.finish()
    for team in service.teams:
        team.promotions = [SHARED, f"{team.canary}-p"]
        service.keep_snapshots(team, f"{team.canary}-0")
        for name in team.promotions:
            body = {"study": f"{team.canary}-0", "name": name, "note": team.canary}
            assert team.client.post("/v1/promotions", json=body).status_code == 201
            assert team.client.post(f"/v1/promotions/{name}/latest/deliveries", json={}).status_code == 202
    service.finish()
    yield service
    engine.dispose()


def test_what_belongs_to_another_team_is_not_there(service: Service) -> None:
    """Every route that names something, with everything that the other team has: 404 in the words for nothing."""
    for team, other in (service.teams, service.teams[::-1]):
        asked = set()
        for method, path, operation in service.operations():
            for names in foreign_names(service, other, path):
                require_absent(team, other, method, path, operation, names)
                asked.add(operation)
        assert asked == {operation for _, _, operation in service.operations()}


def test_everything_that_is_ones_own_tells_of_nobody_else(service: Service) -> None:
    for team, other in (service.teams, service.teams[::-1]):
        for path in service.reads():
            read = team.client.get(path)
            require_nothing_of(other, read)
            assert read.status_code == read_status(team, path), path
        seen = 0
        for method, path, operation in service.operations():
            names = {"number": "0", "version": "1", "name": SHARED, "job": str(service.jobs(team)[0])}
            names |= {"delivery": str(service.deliveries(team)[0]), "artifact": "adapter"}
            if method == "GET":
                answer = ask(team, method, path, operation, **names)
                require_nothing_of(other, answer)
                seen += team.canary in answer.text
        assert seen >= 4


def test_random_requests_of_both(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    shake(postgres, tmp_path, examples=8, steps=20)
