"""Every button does what it says, asks first where nothing can be taken back, and says what went wrong."""

from playwright.sync_api import Browser, Page

from hpo_service.auth.principals import Scope
from hpo_service.storage.queries import promotions
from hpo_service.storage.tables import DEFAULT_PROJECT_ID
from tests import serving
from tests.browsing import Console, needs_chromium, open_page

pytestmark = needs_chromium


def press(page: Page, selector: str, *, sure: bool | None = None) -> str:
    """Press a button, answer the question if there is one; what the page says afterwards."""
    page.click(selector)
    if sure is not None:
        page.wait_for_selector("#confirm[open]")
        page.click("#confirm-yes" if sure else "#confirm [data-close]")
        page.wait_for_selector("#confirm:not([open])", state="attached")
    if sure is False:
        return ""
    return said(page)


def said(page: Page) -> str:
    """What the page, not one of its dialogs, says became of a request."""
    page.wait_for_selector("#page-outcome:is(.said, .refused)")
    return str(page.text_content("#page-outcome"))


def refused(page: Page, dialog: str) -> str:
    """Send a dialog that is not accepted; what it says."""
    page.click(f"#{dialog} [type=submit]")
    page.wait_for_selector(f"#{dialog} .outcome.refused")
    return str(page.text_content(f"#{dialog} .outcome"))


def held_study(console: Console, **changes: object) -> None:
    """Study `first`, whose slices run until they are stopped."""
    console.executor.hold = True
    console.client.create_study(serving.spec("first", **changes))
    console.turn(lambda: console.state("first") == "running" and bool(console.executor.submitted))


def ended_study(console: Console) -> None:
    console.client.create_study(serving.spec("first"))
    console.turn(lambda: console.state("first") == "completed")
    best = console.client.get("/v1/studies/first")["best"]["trial_number"]
    serving.keep_snapshot(console.root, console.sessions, best)


def test_pause_resume_stop(console: Console, browser: Browser) -> None:
    held_study(console)
    with console.page(browser) as page:
        open_page(page, f"{console.url}/studies/first")
        assert press(page, "#pause") == "Pause was asked for."
        console.turn(lambda: console.state("first") == "paused")
        assert press(page, "#resume") == "Resume was asked for."
        console.turn(lambda: console.state("first") == "running")
        page.wait_for_selector("#pause")
        press(page, "#stop", sure=False)
        assert console.client.get("/v1/studies/first")["pending"] == []
        assert press(page, "#stop", sure=True) == "Stop was asked for."
        console.executor.hold = False
        console.turn(lambda: console.state("first") == "completed")
        page.wait_for_selector("#head .chip.completed")


def test_cancel_and_delete(console: Console, browser: Browser) -> None:
    held_study(console)
    with console.page(browser) as page:
        open_page(page, f"{console.url}/studies/first")
        assert press(page, "#cancel", sure=True) == "Cancel was asked for."
        console.turn(lambda: console.state("first") == "cancelled")
        page.click("#delete")
        assert "first" in str(page.text_content("#confirm-question"))
        page.click("#confirm-yes")
        page.wait_for_url(f"{console.url}/")
        console.turn(lambda: console.client.get("/v1/studies")["items"] == [])
        page.wait_for_selector("#studies .empty")


def test_extend_the_budget(console: Console, browser: Browser) -> None:
    held_study(console, search={"seed": 3})  # a deterministic study takes no cap that depends on the clock
    with console.page(browser) as page:
        open_page(page, f"{console.url}/studies/first")
        page.click("#open-extend")
        page.fill("[name='budget.max_trials']", "many")
        assert "max_trials" in refused(page, "extend")
        page.fill("[name='budget.max_trials']", "9")
        page.fill("[name='budget.max_gpu_hours']", "2.5")
        page.click("#extend [type=submit]")
        assert said(page) == "Extend was asked for."
        console.turn(lambda: console.client.get("/v1/studies/first")["resolved"]["budget"]["max_trials"] == 9)
        budget = console.client.get("/v1/studies/first")["resolved"]["budget"]
        assert (budget["max_gpu_hours"], budget["max_cost_usd"]) == (2.5, None)
        page.wait_for_selector("text=of 9")


def test_an_extension_is_meant_for_what_was_seen(console: Console, browser: Browser) -> None:
    held_study(console)
    with console.page(browser) as page:
        open_page(page, f"{console.url}/studies/first")
        page.click("#open-extend")
        console.client.patch_study("first", {"budget": {"max_trials": 8}})
        page.fill("[name='budget.max_trials']", "7")
        assert "was changed meanwhile" in refused(page, "extend")


def test_enqueue_a_trial(console: Console, browser: Browser) -> None:
    held_study(console)
    with console.page(browser) as page:
        open_page(page, f"{console.url}/studies/first")
        page.click("#open-enqueue")
        page.fill("[name='parameters.learning_rate']", "7")
        assert "learning_rate" in refused(page, "enqueue")
        page.fill("[name='parameters.learning_rate']", "3e-3")
        page.select_option("[name='parameters.lora_r']", "16")
        page.click("#enqueue [type=submit]")
        assert said(page) == "The trial was enqueued."
        console.executor.hold = False
        console.turn(lambda: console.state("first") == "completed")
        trials = console.client.get("/v1/studies/first/trials")["items"]
        asked = [one for one in trials if one["parameters"]["learning_rate"] == 3e-3]
        assert [one["parameters"]["lora_r"] for one in asked] == [16]


def test_promote_and_go_back(console: Console, browser: Browser) -> None:
    ended_study(console)
    with console.page(browser) as page:
        for expected in (1, 2):
            open_page(page, f"{console.url}/studies/first")
            page.click("#open-promote")
            page.fill("[name='name']", "prod")
            page.fill("[name='note']", "from the console")
            page.click("#promote [type=submit]")
            assert said(page).startswith("Promoted")
            assert console.client.get("/v1/promotions/prod/latest")["version"] == expected
        page.click("nav a[href='/promotions']")
        page.click("a[href='/promotions/prod/1']")
        assert "from the console" in str(page.text_content("main"))
        assert press(page, "#deliver-merged", sure=True).startswith("A delivery has begun")
        page.wait_for_selector("#deliveries >> text=adapter, merged")
        (delivery,) = console.client.get("/v1/deliveries")["items"]
        assert (delivery["promotion"], delivery["merge"]) == ("prod@1", True)
        press(page, "#rollback", sure=False)
        assert console.client.get("/v1/promotions/prod/latest")["version"] == 2
        assert press(page, "#rollback", sure=True) == "A new version repeats this one."
        latest = console.client.get("/v1/promotions/prod/latest")
        assert (latest["version"], latest["rollback_of"]) == (3, 1)


def test_promote_a_trial_of_ones_choice(console: Console, browser: Browser) -> None:
    ended_study(console)
    best = console.client.get("/v1/studies/first")["best"]["trial_number"]
    trials = console.client.get("/v1/studies/first/trials")["items"]
    other = next(one["number"] for one in trials if one["state"] == "COMPLETE" and one["number"] != best)
    serving.keep_snapshot(console.root, console.sessions, other)
    with console.page(browser) as page:
        open_page(page, f"{console.url}/studies/first/trials/{other}")
        page.click("#open-promote")
        page.fill("[name='name']", "no name!")
        refused(page, "promote")
        page.fill("[name='name']", "mine")
        page.click("#promote [type=submit]")
        assert said(page).startswith("Promoted")
    assert console.client.get("/v1/promotions/mine/latest")["trial_number"] == other


def test_nothing_is_used_before_another_has_approved_it(console: Console, browser: Browser) -> None:
    ended_study(console)
    with console.sessions.begin() as session:
        promotions.set_approval(session, DEFAULT_PROJECT_ID, True)
    console.client.promote("first", "prod")
    with console.page(browser, Scope.STUDY_READ) as page:
        open_page(page, f"{console.url}/promotions/prod/1")
        page.wait_for_selector("text=waits for approval")
        assert page.locator("#approve, #exports").count() == 0
    with console.page(browser) as page:
        open_page(page, f"{console.url}/promotions/prod/1")
        assert press(page, "#approve", sure=True) == "Approved."
        page.wait_for_selector("#head >> text=approved")
        page.wait_for_selector("#exports")
    assert console.client.get("/v1/promotions/prod/latest")["version"] == 1


def test_workers_drain_quarantine_release(console: Console, browser: Browser) -> None:
    held_study(console)
    with console.page(browser) as page:
        open_page(page, f"{console.url}/workers")
        page.wait_for_selector("#workers .chip.ready")
        name = console.client.get("/v1/workers")["items"][0]["name"]
        row = page.locator("#workers tbody tr").filter(has_text=name)
        row.get_by_role("button", name="Quarantine").click()
        page.click("#confirm-yes")
        assert said(page) == "Quarantine was asked for."
        console.turn(lambda: states(console).get(name) == "quarantined")
        row.get_by_role("button", name="Release").click()
        page.wait_for_selector("#page-outcome >> text=Release was asked for.")
        console.turn(lambda: "quarantined" not in states(console).values())
        page.get_by_role("button", name="Drain").first.click()
        page.click("#confirm-yes")
        page.wait_for_selector("#page-outcome >> text=Drain was asked for.")


def states(console: Console) -> dict[str, str]:
    return {one["name"]: one["state"] for one in console.client.get("/v1/workers")["items"]}


def test_what_another_did_meanwhile_is_said(console: Console, browser: Browser) -> None:
    held_study(console)
    with console.page(browser) as page:
        open_page(page, f"{console.url}/studies/first")
        page.route("**/console/changes", lambda route: route.abort())
        page.evaluate("close()")  # this page stays as it is
        console.client.post("/v1/studies/first:cancel")
        assert "cannot become" in press(page, "#pause")


def test_a_key_that_may_not_is_refused_with_its_scope(console: Console, browser: Browser) -> None:
    held_study(console)
    with console.page(browser, Scope.STUDY_READ) as page:
        open_page(page, f"{console.url}/studies/first")
        assert page.locator("#head button").count() == 0
        status = page.evaluate(
            "fetch('/v1/studies/first:pause', {method: 'POST', headers: {'HPO-Console': '1'}}).then((a) => a.status)"
        )
        assert status == 403


def test_logging_out(console: Console, browser: Browser) -> None:
    with console.page(browser) as page:
        open_page(page, f"{console.url}/")
        page.click("#log-out")
        page.wait_for_selector("h1:text-is('Log in')")
        assert [cookie["name"] for cookie in page.context.cookies()] == []
        assert page.goto(f"{console.url}/workers").status == 401  # type: ignore[union-attr]
