"""A real service with a dispatcher that is turned by hand, and a real browser that looks at it."""

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, sync_playwright
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.api.app import create_app
from hpo_service.api.process import listen
from hpo_service.auth.principals import Scope, create_key, create_login_link
from hpo_service.client.http import Client
from hpo_service.core.settings import Settings
from hpo_service.dispatcher.loop import Dispatcher
from hpo_service.executors.fake import FakeExecutor
from hpo_service.storage.tables import DEFAULT_PROJECT_ID
from tests import serving
from tests.dispatching import loss_of, make

SCREENSHOTS = Path(__file__).parents[1] / ".artifacts" / "screenshots"
WIDTHS = (1280, 1024, 390)
_NAMES = ("chromium", "chromium-browser", "google-chrome")


def find_chromium() -> str | None:
    """The first Chromium on PATH."""
    return next((found for found in map(shutil.which, _NAMES) if found is not None), None)


needs_chromium = pytest.mark.skipif(find_chromium() is None, reason=f"no browser on PATH: {', '.join(_NAMES)}")


@dataclass
class Console:
    """A service with its address. `complaints` are what the browser's console, CSP and dialogs said."""

    url: str
    key: str
    sessions: sessionmaker[Session]
    client: Client
    executor: FakeExecutor
    dispatcher: Dispatcher
    root: Path
    complaints: list[str] = field(default_factory=list)

    def login_link(self, *scopes: Scope) -> str:
        """For a browser with these rights; without any named, with all."""
        with self.sessions.begin() as session:
            key = create_key(session, DEFAULT_PROJECT_ID, "browser", scopes or tuple(Scope))
            return create_login_link(session, key, self.url)

    def turn(self, condition: Callable[[], bool], turns: int = 400) -> None:
        """Turn the dispatcher until the condition holds."""
        for _ in range(turns):
            if condition():
                return
            self.dispatcher.turn()
        raise AssertionError("the condition did not come true")

    def state(self, name: str) -> str:
        """Of a study."""
        return str(self.client.get(f"/v1/studies/{name}")["state"])

    def _listen(self, page: Page) -> None:
        def note(said: ConsoleMessage) -> None:
            # An answer that is an error is a test's own matter, which looks at what the page makes of it.
            if said.type in ("error", "warning") and not said.text.startswith("Failed to load resource"):
                self.complaints.append(said.text)

        def dismiss(dialog: Dialog) -> None:
            self.complaints.append(f"dialog: {dialog.message}")
            dialog.dismiss()

        page.on("console", note)
        page.on("dialog", dismiss)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    @contextmanager
    def page(self, browser: Browser, *scopes: Scope, width: int = 1280, dark: bool = False) -> Iterator[Page]:
        """A page that is logged in."""
        context = browser.new_context(
            viewport={"width": width, "height": 800},
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",
            timezone_id="UTC",
        )
        page = context.new_page()
        page.set_default_timeout(15_000)
        self._listen(page)
        page.goto(self.login_link(*scopes))
        page.wait_for_url(f"{self.url}/")
        yield page
        context.close()


@contextmanager
def browsing() -> Iterator[Browser]:
    """A headless Chromium of this machine; none is downloaded."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_chromium(), args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


@contextmanager
def serving_console(engine: Engine, sessions: sessionmaker[Session], root: Path) -> Iterator[Console]:
    """The API on a port of its own, in a thread. Nobody but the test turns the dispatcher."""
    settings = Settings(home=root / "home", roots=(root,))
    app: FastAPI = create_app(settings, engine, with_dashboard=False)
    listener = listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="warning", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    dispatcher, executor = make(sessions, FakeExecutor(loss_of, total_examples=serving.ROWS, workers=2))
    try:
        key = serving.make_key(sessions)
        with Client(url, key) as client:
            yield Console(url, key, sessions, client, executor, dispatcher, root)
    finally:
        app.state.stopping.set()
        server.should_exit = True
        thread.join(15)
        listener.close()


def open_page(page: Page, address: str) -> None:
    """Go there and wait until it is live."""
    page.goto(address)
    page.wait_for_selector(".connection.live")


def overflow_pixels(page: Page) -> int:
    """By how much the page is wider than its window, or a table than its panel, whose last column is then cut."""
    width = page.evaluate(
        "Math.max(...[document.documentElement, ...document.querySelectorAll('.scroll')]"
        ".map((part) => part.scrollWidth - part.clientWidth))"
    )
    assert isinstance(width, int)
    return width


def shoot(page: Page, name: str) -> None:
    """Keep a picture of the whole page."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)
