"""A real Chromium for the tests that need a page, and a recorder of whatever the page asks elsewhere.

Chromium is the system's own. No name but the loopback address resolves in it, so nothing can leave.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, sync_playwright
from starlette.types import ASGIApp

from tests.browser.page_record import PageRecord

CHROMIUM = Path(os.environ.get("SHEAF_CHROMIUM", "/usr/bin/chromium"))
ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


# Not for the whole run: while Playwright is open its event loop is, and tests with loops of their own fail.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One Chromium for a module, with an empty profile of its own."""
    if not CHROMIUM.is_file():
        pytest.fail(f"{CHROMIUM} is missing: install chromium, or deselect these tests with -m 'not browser'")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def foreign_requests() -> PageRecord:
    """The record of `chromium_page`; call `allow(url)` before the page loads."""
    return PageRecord()


@pytest.fixture
def chromium_page(chromium: Browser, foreign_requests: PageRecord) -> Iterator[Page]:
    """A fresh page with no history, watched by `foreign_requests`."""
    context = chromium.new_context(viewport={"width": 1440, "height": 1000}, service_workers="block")
    foreign_requests.watch(context)
    yield context.new_page()
    context.close()


@contextmanager
def _served(app: ASGIApp) -> Iterator[str]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="auto"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            if not thread.is_alive():
                raise RuntimeError("the server stopped before it was ready")
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            thread.join(timeout=30)


@pytest.fixture
def serve() -> Iterator[Callable[[ASGIApp], str]]:
    """`serve(app)` runs an ASGI app on a free loopback port until the test ends and gives its URL."""
    with ExitStack() as stack:
        yield lambda app: stack.enter_context(_served(app))
