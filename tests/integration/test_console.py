"""The console's pages: what they show, to whom they show which buttons, and a first look with a real browser."""

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.auth.principals import Scope, create_key
from hpo_service.storage.tables import DEFAULT_PROJECT_ID
from tests import serving
from tests.browsing import Console, browsing, needs_chromium, open_page, overflow_pixels, serving_console, shoot
from tests.dispatching import turn_until
from tests.reported import Page

Sessions = sessionmaker[Session]


@pytest.fixture
def searched(client: TestClient, sessions: Sessions) -> TestClient:
    """A client of a service with a study that has ended."""
    client.post("/v1/studies", json=serving.spec())
    dispatcher, _ = serving.make_dispatcher(sessions)
    turn_until(dispatcher, lambda: client.get("/v1/studies/first").json()["state"] == "completed")
    return client


@pytest.fixture
def console(engine: Engine, sessions: Sessions, root: Path) -> Iterator[Console]:
    """A service with a port."""
    with serving_console(engine, sessions, root) as console:
        yield console


def seen(client: TestClient, path: str) -> Page:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    return Page(answer.text)


def identifiers(page: Page) -> set[str]:
    return {value for name, value in page.attributes if name == "id"}


def test_an_empty_service_says_how_to_begin(client: TestClient) -> None:
    page = seen(client, "/")
    assert "hpo study create" in page.text
    assert "No slice runs now." in page.text
    assert "Nothing waits." in page.text
    assert "Nothing was promoted yet" in seen(client, "/promotions").text
    assert "No worker." in seen(client, "/workers").text


def test_pages_of_a_study_that_has_ended(searched: TestClient) -> None:
    start = seen(searched, "/")
    assert "0 running" in start.text
    assert "lowest loss at any rung" in start.text
    study = seen(searched, "/studies/first")
    best = searched.get("/v1/studies/first").json()["best"]
    assert f"{best['loss']:.4f}" in study.text
    assert "evaluation loss" in study.text
    assert "study is completed" in study.text
    assert "Best so far" not in study.text
    assert {"promote", "delete"} <= identifiers(study)
    assert not {"pause", "cancel", "open-extend"} & identifiers(study)
    trial = seen(searched, f"/studies/first/trials/{best['trial_number']}")
    assert "Attempts" in trial.text
    assert "done" in trial.text
    assert searched.get("/studies/second").status_code == 404
    assert searched.get("/studies/first/trials/99").status_code == 404
    assert searched.get("/studies/<script>").status_code == 400


def test_trials_come_in_pages_and_two_orders(searched: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpo_service.services.views.study_page.TRIALS_A_PAGE", 2)
    best = searched.get("/v1/studies/first").json()["best"]["trial_number"]
    pages = [searched.get("/studies/first", params={"order": "best", "page": page}).text for page in (1, 2, 3, 99)]
    numbers = [
        list(dict.fromkeys(re.findall(r'data-column="Trial"><div><a href="[^"]*/(\d+)"', page))) for page in pages
    ]
    assert numbers[0][0] == str(best)
    assert sorted(number for page in numbers[:3] for number in page) == ["0", "1", "2", "3", "4", "5"]
    assert numbers[3] == numbers[2]
    assert "page 2 of 3, 6 trials" in Page(pages[1]).text
    newest = searched.get("/studies/first", params={"order": "newest"}).text
    assert newest.index('/trials/5"') < newest.index('/trials/4"')


def test_only_the_buttons_of_the_key_are_shown(searched: TestClient, sessions: Sessions) -> None:
    searched.post("/v1/studies", json=serving.spec("second"))
    for scopes, here in (
        ((Scope.STUDY_READ,), set()),
        ((Scope.STUDY_READ, Scope.STUDY_WRITE), {"pause", "stop", "cancel", "open-extend", "open-enqueue", "delete"}),
        ((Scope.STUDY_READ, Scope.PROMOTE), {"open-promote"}),
    ):
        with sessions.begin() as session:
            key = create_key(session, DEFAULT_PROJECT_ID, "some", scopes)
        searched.headers.update(serving.bearer(key))
        found = set().union(*(identifiers(seen(searched, f"/studies/{name}")) for name in ("first", "second")))
        buttons = {"pause", "resume", "stop", "cancel", "delete", "open-extend", "open-enqueue", "open-promote"}
        assert found & buttons == here


def test_a_wrong_address_is_a_page_for_people_and_a_problem_for_programs(client: TestClient) -> None:
    key = client.headers.pop("authorization").removeprefix("Bearer ")
    link = client.post("/v1/login-links", headers=serving.bearer(key)).json()["url"]
    client.get(link)
    people, programs = {"Accept": "text/html,*/*;q=0.8"}, {"Accept": "*/*"}
    for path, status, words in (
        ("/studies/nope", 404, "There is no study named 'nope'"),
        ("/studies/<script>", 400, "name"),
        ("/nowhere", 404, "There is nothing at this address"),
        ("/workers?_", 200, "No worker."),
    ):
        answer = client.get(path, headers=people)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html; charset=utf-8")
        page = Page(answer.text)
        assert words in page.text
        assert "script" not in page.elements or status == 200
    problem = "application/problem+json"
    assert client.get("/studies/nope", headers=programs).headers["content-type"] == problem
    assert client.get("/v1/studies/nope", headers=people).headers["content-type"] == problem
    with_key = people | serving.bearer(key)
    assert client.get("/studies/nope", headers=with_key).headers["content-type"] == problem


def test_assets_change_their_address_with_their_content(client: TestClient) -> None:
    addresses = [value for name, value in seen(client, "/").attributes if value.startswith("/console/assets/")]
    assert len(addresses) == 2
    for address in addresses:
        answer = client.get(address)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
    assert client.get(addresses[0].replace("console.", "other.")).status_code == 404
    assert client.get("/console/assets/0000/console.js").status_code == 404


def test_ended_studies_go_on_on_the_next_page(client: TestClient, sessions: Sessions) -> None:
    for number in range(17):
        client.post("/v1/studies", json=serving.spec(f"s{number}"))
    with sessions.begin() as session:
        session.execute(text("UPDATE hpo.studies SET state = 'cancelled' WHERE name <> 's0'"))
    first = seen(client, "/")
    assert "s0" in first.text
    older = next(value for name, value in first.attributes if value.startswith("/?older="))
    second = seen(client, older)
    assert ("href", "/studies/s1") in second.attributes
    assert ("href", "/studies/s16") not in second.attributes
    assert ("href", "/studies/s16") in first.attributes


@needs_chromium
def test_a_page_lives_and_a_button_works(console: Console) -> None:
    console.client.create_study(serving.spec("first", budget={"max_trials": 6}))
    console.executor.hold = True
    with browsing() as browser, console.page(browser, width=390, dark=True) as page:
        open_page(page, f"{console.url}/studies/first")
        page.evaluate("window.loadedOnce = true")
        console.turn(lambda: console.state("first") == "running")
        page.wait_for_selector("#head .chip.running")
        page.click("#pause")
        page.wait_for_selector(".outcome.said")
        assert page.text_content("#page-outcome") == "Pause was asked for."
        console.turn(lambda: console.state("first") == "paused")
        page.wait_for_selector("#head .chip.paused")
        page.wait_for_selector("#resume")
        assert page.evaluate("window.loadedOnce") is True
        assert overflow_pixels(page) == 0
        shoot(page, "smoke")
    assert console.complaints == []


def test_the_stream_says_hello_and_when_to_look_again(console: Console) -> None:
    kinds: list[str] = []
    address, headers = f"{console.url}/console/changes", serving.bearer(console.key)
    with httpx.Client(trust_env=False, headers=headers, timeout=20) as client, client.stream("GET", address) as answer:
        for line in answer.iter_lines():
            if line.startswith("event: "):
                kinds.append(line.removeprefix("event: "))
                if len(kinds) == 2:
                    break
                console.client.create_study(serving.spec("first"))
    assert kinds == ["hello", "change"]
