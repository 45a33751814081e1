"""The documentation page as a server gives it, with all its headers: it works, and cannot be framed."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
from playwright.sync_api import Page
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from sheaf.embedded import EmbeddedServer
from sheaf.http.keys import Access, ApiKey, hash_of
from sheaf.spec import ModelSpec
from tests.browser.page_record import PageRecord
from tests.echoes import Echo

pytestmark = pytest.mark.browser


def test_the_page_works_under_the_server_s_headers(chromium_page: Page, foreign_requests: PageRecord) -> None:
    access = Access(keys=(ApiKey(name="ann", sha256=hash_of("secret")),), open_docs=True)
    spec = ModelSpec(name="statsforecast", backend_cls=Echo)
    with EmbeddedServer(spec, port=0, access=access) as server:
        foreign_requests.allow(server.url)
        answer = chromium_page.goto(f"{server.url}/docs")
        assert answer is not None
        assert answer.headers["x-frame-options"] == "DENY"
        document = httpx.get(f"{server.url}/openapi.json").json()
        summary = document["paths"]["/statsforecast/time_series/forecast"]["post"]["summary"]
        chromium_page.locator("aside").first.get_by_role("link", name="statsforecast", exact=True).click()
        chromium_page.get_by_role("heading", name=summary, exact=True).wait_for()
        # What the page asks carries the key, and is refused without: the policy lets it ask at all.
        statuses = chromium_page.evaluate(
            """async () => {
                const ask = headers => fetch("/statsforecast/predict", {method: "POST", body: "{}",
                    headers: {"content-type": "application/json", ...headers}}).then(r => r.status);
                return [await ask({}), await ask({authorization: "Bearer secret"})];
            }"""
        )
        assert statuses == [401, 422]
    assert foreign_requests.foreign == []
    assert [fault for fault in foreign_requests.faults if "401" not in fault and "422" not in fault] == []


def test_the_page_cannot_be_framed(
    chromium_page: Page, foreign_requests: PageRecord, serve: Callable[[ASGIApp], str]
) -> None:
    with EmbeddedServer(ModelSpec(name="echo", backend_cls=Echo), port=0) as server:

        async def framing(request: Request) -> HTMLResponse:
            return HTMLResponse(f"<iframe src='{server.url}/docs'></iframe>")

        outer = serve(Starlette(routes=[Route("/", framing)]))
        foreign_requests.allow(server.url)
        foreign_requests.allow(outer)
        with chromium_page.expect_console_message(lambda message: "frame" in message.text.lower()):
            chromium_page.goto(outer)
        assert chromium_page.frames[1].locator("aside").count() == 0
