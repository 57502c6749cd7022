"""What the pages look like: no wider than the window, hostile words as words, a keyboard's way, a lost connection."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, Route
from sqlalchemy import text

from tests import serving
from tests.browsing import SCREENSHOTS, WIDTHS, Console, needs_chromium, open_page, overflow_pixels, shoot
from tests.reported import HOSTILE
from tests.scene import LONG, fill, places

pytestmark = needs_chromium


def test_every_page_fits_and_is_kept_as_a_picture(console: Console, browser: Browser) -> None:
    fill(console)
    for width in WIDTHS:
        for dark in (False, True):
            with console.page(browser, width=width, dark=dark) as page:
                for name, path in places(console).items():
                    open_page(page, f"{console.url}{path}")
                    assert overflow_pixels(page) == 0, f"{name} at {width}"
                    shoot(page, f"{name}-{'dark' if dark else 'light'}-{width}")
    with console.page(browser, width=390) as page:
        open_page(page, f"{console.url}/studies/{LONG}")
        for dialog in ("extend", "enqueue"):
            page.click(f"#open-{dialog}")
            assert overflow_pixels(page) == 0
            page.screenshot(path=SCREENSHOTS / f"{dialog}-390.png")
            page.keyboard.press("Escape")


def test_signs_of_life_are_shown_as_they_come(console: Console, browser: Browser) -> None:
    with console.page(browser) as page:
        page.evaluate("window.loadedOnce = true")
        fill(console)
        page.wait_for_selector("#running >> text=12,346 tok/s")
        words = str(page.text_content("#running"))
        assert "41 GiB" in words
        assert "1.2345" in words
        page.wait_for_selector("#queue >> text=waits for its first slice")
        page.wait_for_selector("#studies .chip.completed")
        assert page.evaluate("window.loadedOnce") is True


def test_hostile_words_are_words(console: Console, browser: Browser) -> None:
    fill(console)
    with console.sessions.begin() as session:
        quoted = json.dumps(HOSTILE)
        session.execute(text("UPDATE hpo.studies SET message = :words"), {"words": HOSTILE})
        session.execute(text("UPDATE hpo.studies SET name = :words WHERE name = 'waits'"), {"words": HOSTILE})
        session.execute(text("UPDATE hpo.workers SET message = :words, node = :words"), {"words": HOSTILE})
        session.execute(
            text("UPDATE hpo.events SET payload = payload || jsonb_build_object('message', :words, 'reason', :words)"),
            {"words": HOSTILE},
        )
        session.execute(text("UPDATE hpo.attempts SET message = :words"), {"words": HOSTILE})
        session.execute(
            text("UPDATE optuna.trial_user_attributes SET value_json = :value WHERE key = 'target_modules'"),
            {"value": quoted},
        )
        session.execute(
            text("UPDATE hpo.slices SET progress = progress || jsonb_build_object('phase', CAST(:words AS jsonb))"),
            {"words": quoted},
        )
    with console.page(browser) as page:
        for name, path in places(console).items():
            open_page(page, f"{console.url}{path}")
            assert page.locator("script").count() == 1, name
            assert page.locator("img").count() == 0, name
        open_page(page, f"{console.url}/")
        assert HOSTILE in str(page.text_content("#studies"))
        open_page(page, f"{console.url}/studies/{LONG}")
        assert HOSTILE in str(page.text_content("#head"))
        shoot(page, "hostile")


def test_a_keyboard_reaches_a_button_and_sees_where_it_is(console: Console, browser: Browser) -> None:
    fill(console)
    with console.page(browser) as page:
        open_page(page, f"{console.url}/studies/{LONG}")
        tab_to(page, "pause")
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        page.keyboard.press("Enter")
        page.wait_for_selector(".outcome.said")
        assert console.client.get(f"/v1/studies/{LONG}")["pending"] == ["pause"]
        page.focus("#cancel")
        page.keyboard.press("Enter")
        page.wait_for_selector("#confirm[open]")
        page.keyboard.press("Escape")
        page.wait_for_selector("#confirm:not([open])", state="attached")
        assert page.evaluate("document.activeElement.id") == "cancel"


def test_a_keyboard_alone_enqueues_a_trial(console: Console, browser: Browser) -> None:
    fill(console)
    with console.page(browser) as page:
        open_page(page, f"{console.url}/studies/{LONG}")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
        page.keyboard.press("Enter")
        tab_to(page, "open-enqueue")
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.name") == "parameters.learning_rate"
        page.keyboard.press("Control+A")
        page.keyboard.type("0.002")
        page.keyboard.press("Enter")
        page.wait_for_selector("#page-outcome.said >> text=The trial was enqueued.")
    assert console.client.get(f"/v1/studies/{LONG}")["pending"] == ["enqueue"]


def tab_to(page: Page, identifier: str) -> None:
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == identifier:
            return
    raise AssertionError(f"{identifier} was not reached")


def test_the_focus_stays_while_the_page_changes(console: Console, browser: Browser) -> None:
    fill(console)
    with console.page(browser) as page:
        link = page.locator("#studies a.study").first
        link.focus()
        name = link.text_content()
        with console.sessions.begin() as session:
            session.execute(text("UPDATE hpo.studies SET message = 'something else'"))
        page.evaluate("refresh()")
        page.wait_for_selector("#studies >> text=something else")
        assert page.evaluate("document.activeElement.textContent") == name


@contextmanager
def offline(page: Page) -> Iterator[None]:
    page.context.set_offline(True)
    page.evaluate("lost()")  # an open stream does not notice by itself that the network is gone
    yield
    page.context.set_offline(False)


def test_a_lost_connection_is_said_and_found_again(console: Console, browser: Browser) -> None:
    with console.page(browser) as page:
        page.wait_for_selector(".connection.live")
        with offline(page):
            page.wait_for_selector(".connection.lost >> text=connection lost, trying again in")
            console.client.create_study(serving.spec("meanwhile"))
            page.wait_for_timeout(2500)
            assert page.locator("text=meanwhile").count() == 0
        page.wait_for_selector("#studies >> text=meanwhile", timeout=30_000)
        page.wait_for_selector(".connection.live")


def test_a_page_that_is_to_wait_looks_again(console: Console, browser: Browser) -> None:
    with console.page(browser) as page:
        page.wait_for_selector(".connection.live")
        refused: list[str] = []

        def refuse_once(route: Route) -> None:
            if refused or "hpo-console" not in route.request.headers:
                route.continue_()
                return
            refused.append(route.request.url)
            route.fulfill(status=429, headers={"Retry-After": "1"})

        page.route(f"{console.url}/", refuse_once)
        console.client.create_study(serving.spec("meanwhile"))
        page.wait_for_selector("#studies >> text=meanwhile")
        assert len(refused) == 1


def test_a_session_that_has_ended_is_said(console: Console, browser: Browser) -> None:
    with console.page(browser) as page:
        page.wait_for_selector(".connection.live")
        with console.sessions.begin() as session:
            session.execute(text("UPDATE hpo.browser_tokens SET expires_at = clock_timestamp()"))
        page.evaluate("refresh()")
        page.wait_for_selector(".connection.lost >> text=the session has ended")


@pytest.mark.parametrize("header", ["origin", "console"])
def test_another_site_changes_nothing(console: Console, browser: Browser, header: str) -> None:
    console.executor.hold = True
    console.client.create_study(serving.spec("first"))
    with console.page(browser) as page:
        if header == "origin":
            page.goto("data:text/html,<title>elsewhere</title>")
        headers = "{'HPO-Console': '1'}" if header == "origin" else "{}"
        options = f"{{method: 'POST', credentials: 'include', headers: {headers}}}"
        ask = f"fetch('{console.url}/v1/studies/first:cancel', {options})"
        answer = page.evaluate(f"{ask}.then((a) => a.status).catch(() => 'blocked')")
        assert answer == ("blocked" if header == "origin" else 403)
    assert console.client.get("/v1/studies/first")["pending"] == ["create"]
    console.complaints.clear()
