"""A real Chromium on a real server, with what every page must keep: no foreign host, no error.

The server is a process of its own on the test database: tests write rows through the ORM and see
what the browser did to them.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest
from django.conf import settings
from django.db import connection
from django.test import Client
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    expect,
    sync_playwright,
)

from kb.models import User
from tests.model_server import ModelServer

FLAGS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-sync",
    "--no-first-run",
]
DESKTOP = (1440, 900)
PHONE = (390, 844)
# Long enough for a machine that is busy with other work; nothing waits longer than it must.
expect.set_options(timeout=30_000)
AXE = Path(__file__).parent / "vendor" / "axe.min.js"


@pytest.fixture(scope="session")
def server(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the address of a running server that answers from the passages."""
    with _serve(tmp_path_factory.mktemp("server")) as address:
        yield address


@pytest.fixture(scope="session")
def server_with_model(
    django_db_setup: None,
    tmp_path_factory: pytest.TempPathFactory,
    model_server_process: ModelServer,
) -> Iterator[str]:
    """Give the address of a running server that asks the stub model server."""
    with _serve(
        tmp_path_factory.mktemp("server"), MODEL_SERVER_URL=model_server_process.url
    ) as address:
        yield address


@contextmanager
def _serve(folder: Path, **variables: str) -> Iterator[str]:
    port = _free_port()
    log = (folder / "log").open("w+")
    command = [sys.executable, "-m", "uvicorn", "config.asgi:application", "--port", str(port)]
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.browser.server_settings",
        "DATABASE_URL": _test_database_url(),
        "LOG_LEVEL": "WARNING",
        **variables,
    }
    environment.pop("DJANGO_ALLOW_ASYNC_UNSAFE", None)
    process = subprocess.Popen(
        [*command, "--timeout-graceful-shutdown", "2"], env=environment, stdout=log, stderr=log
    )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"{address}/healthz", process, log)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=20)
        log.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _test_database_url() -> str:
    name = settings.DATABASES["default"]["NAME"]
    return urlsplit(settings.DATABASE_URL)._replace(path=f"/{name}").geturl()


def _wait_for(address: str, process: subprocess.Popen[bytes], log: IO[str]) -> None:
    for _ in range(600):
        if process.poll() is not None:
            break
        with suppress(OSError), urlopen(address, timeout=5):
            return
        time.sleep(0.1)
    log.seek(0)
    raise RuntimeError(f"the server did not start:\n{log.read()}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # One a module, not one a session: while Playwright runs, this thread counts as running an
    # event loop, which asynchronous tests in other modules could not stand.
    patch = pytest.MonkeyPatch()
    patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        if path is None and not Path(playwright.chromium.executable_path).exists():
            pytest.skip("no Chromium is installed (script/test installs one)")
        launched = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield launched
        launched.close()
    patch.undo()


@dataclass
class Visit:
    """Opens browsers for people, and remembers what their pages did wrong."""

    browser: Browser
    server: str
    contexts: list[BrowserContext] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def __call__(
        self,
        user: User | None,
        path: str = "/",
        *,
        size: tuple[int, int] = DESKTOP,
        dark: bool = False,
    ) -> Page:
        """Open a page as somebody, signed in; `size` in CSS pixels."""
        context = self.browser.new_context(
            base_url=self.server,
            viewport={"width": size[0], "height": size[1]},
            color_scheme="dark" if dark else "light",
            permissions=["clipboard-read", "clipboard-write"],
            reduced_motion="reduce",
        )
        self.contexts.append(context)
        if user is not None:
            client = Client()
            client.force_login(user)
            session = client.cookies[settings.SESSION_COOKIE_NAME].value
            context.add_cookies(
                [{"name": settings.SESSION_COOKIE_NAME, "value": session, "url": self.server}]
            )
        context.on("request", self._note_request)
        context.on("console", self._note_console)
        context.on("weberror", lambda error: self.errors.append(str(error.error)))
        page = context.new_page()
        page.goto(path)
        return page

    def _note_request(self, request: Request) -> None:
        address = urlsplit(request.url)
        if address.scheme not in ("data", "blob", "about") and request.url.find(self.server) != 0:
            self.foreign.append(request.url)

    def _note_console(self, message: ConsoleMessage) -> None:
        # What a browser says of a refused status is for the page to word, not an error of ours.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.errors.append(message.text)


@pytest.fixture
def visit(browser: Browser, server: str, transactional_db: None) -> Iterator[Visit]:
    """Return `visit(user, path, size=…, dark=…) -> Page`.

    Afterwards the test fails when a page asked a foreign host for anything, broke the content
    security policy, or had a script error.
    """
    yield from _visits(browser, server)


@pytest.fixture
def visit_with_model(
    browser: Browser, server_with_model: str, model_server: ModelServer, transactional_db: None
) -> Iterator[Visit]:
    """Like `visit`, on the server that asks the stub model server."""
    yield from _visits(browser, server_with_model)


def _visits(browser: Browser, server: str) -> Iterator[Visit]:
    visits = Visit(browser, server)
    yield visits
    for context in visits.contexts:
        context.close()
    _wait_until_the_server_rests()
    assert visits.foreign == []
    assert visits.errors == []


def _wait_until_the_server_rests() -> None:
    """Wait for what closed pages had asked for: its locks and those of emptying the tables collide."""
    idle, deadline = 0, time.monotonic() + 10
    while idle < 2 and time.monotonic() < deadline:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND"
                " pid <> pg_backend_pid() AND backend_type = 'client backend' AND state <> 'idle'"
            )
            idle = 0 if cursor.fetchone()[0] else idle + 1
        time.sleep(0.01)


def press(page: Page, key: str) -> None:
    """Press a key as soon as the page listens; one that a click opened may still be loading."""
    page.wait_for_load_state()
    page.keyboard.press(key)


Accessible = Callable[[Page], None]


@pytest.fixture(scope="session")
def accessible() -> Accessible:
    """Return a function that fails when axe finds a fault in the page as it stands."""
    source = AXE.read_text()

    def check(page: Page) -> None:
        page.evaluate(source)
        result = page.evaluate(
            "axe.run(document, {runOnly: ['wcag2a','wcag2aa','wcag21a','wcag21aa','wcag22aa',"
            "'best-practice']})"
        )
        found = [
            f"{fault['id']}: {fault['help']}\n    "
            + "\n    ".join(
                node["html"][:200] + " " + node["failureSummary"] for node in fault["nodes"][:5]
            )
            for fault in result["violations"]
        ]
        assert not found, "\n".join(found)

    return check
