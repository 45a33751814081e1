"""The documentation page in a real browser: it shows the operations with their samples and stays at home."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp

from sheaf.embedded import EmbeddedServer
from sheaf.http import create_app
from sheaf.http.docs import CONTENT_SECURITY_POLICY, docs_routes
from sheaf.local import LocalModels, describe
from sheaf.spec import ModelSpec
from sheaf_client.contracts.models import ModelInfo
from tests.browser.page_record import PageRecord
from tests.contract.echo import EchoBackend
from tests.echoes import Echo

pytestmark = pytest.mark.browser

Serve = Callable[[ASGIApp], str]
#: Plain numbers, tensors, files, and names that are not the samples' own.
SPECS = [
    ModelSpec(name="ann", backend_cls=EchoBackend.of("tabular")),
    ModelSpec(name="caption", backend_cls=EchoBackend.of("audio")),
    ModelSpec(name="daily", backend_cls=Echo),
    ModelSpec(name="embedder", backend_cls=EchoBackend.of("molecular")),
]
FOREIGN = "http://fonts.example.com/inter.woff2"


async def _listed(request: Request) -> list[ModelInfo]:
    return [describe(spec, ready=True) for spec in SPECS]


def _open(page: Page, url: str) -> dict[str, Any]:
    """Load the page, wait until it lists every model, and return the document it shows."""
    document = httpx.get(f"{url}/openapi.json").raise_for_status().json()
    page.goto(f"{url}/docs")
    for tag in document["tags"]:
        page.locator("aside").first.get_by_role("link", name=_title(tag), exact=True).wait_for()
    return document


def _title(tag: dict[str, Any]) -> str:
    """What the page calls a group of operations: a model by its name."""
    return tag.get("x-displayName", tag["name"])


def _reveal(page: Page, document: dict[str, Any], operation: dict[str, Any]) -> None:
    """Unfold an operation, as a reader does: by its model in the sidebar."""
    tag = next(t for t in document["tags"] if t["name"] == operation["tags"][0])
    page.locator("aside").first.get_by_role("link", name=_title(tag), exact=True).click()
    page.get_by_role("heading", name=operation["summary"], exact=True).wait_for()


def _typed(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (path, item["post"])
        for path, item in document["paths"].items()
        if "x-sheaf-stream" in item.get("post", {})
    ]


def _section(page: Page, summary: str) -> Locator:
    return page.locator("section").filter(has=page.get_by_role("heading", name=summary, exact=True)).last


def _expect_samples(page: Page, operation: dict[str, Any]) -> None:
    """Choose each language in the operation's menu: its whole sample is shown, and there is no other."""
    section = _section(page, operation["summary"])
    picker = section.get_by_test_id("client-picker").first
    picker.click()
    labels = [sample["label"] for sample in operation["x-codeSamples"]]
    expect(page.get_by_role("option")).to_have_text(labels)
    page.keyboard.press("Escape")
    for sample in operation["x-codeSamples"]:
        picker.click()
        page.get_by_role("option", name=sample["label"], exact=True).click()
        code = section.locator(".scalar-code-block code").first
        expect(code).to_be_visible()
        assert code.inner_text().split() == sample["source"].split()


def test_shows_operations_and_samples_and_asks_nothing_elsewhere(
    chromium_page: Page, foreign_requests: PageRecord, serve: Serve
):
    url = serve(Starlette(routes=docs_routes(_listed)))
    foreign_requests.allow(url)
    document = _open(chromium_page, url)
    assert "Sheaf" in chromium_page.title()
    # The first thing to be read is what can be called here.
    for spec in SPECS:
        expect(chromium_page.get_by_role("listitem").filter(has_text=f"{spec.name}: ").first).to_be_visible()
    assert "{model_name}" not in chromium_page.locator("#reference").inner_text()

    typed = _typed(document)
    assert [path.split("/")[1] for path, _ in typed] == [spec.name for spec in SPECS]
    for _, operation in typed:
        assert [s["label"] for s in operation["x-codeSamples"]] == ["Python", "TypeScript", "curl"]
        _reveal(chromium_page, document, operation)
        _expect_samples(chromium_page, operation)

    # What is folded away at first, and the request form, load code and styles of their own.
    sidebar = chromium_page.locator("aside").first
    sidebar.get_by_role("link", name="Stream").last.click()
    _expect_samples(chromium_page, document["paths"]["/daily/stream"]["post"])
    _section(chromium_page, "Stream").get_by_role("button", name="Test Request").click()
    expect(chromium_page.get_by_role("button", name="Send").first).to_be_visible()

    assert foreign_requests.foreign == []
    assert foreign_requests.faults == []
    assert foreign_requests.fonts == []
    assert {f"{url}/docs", f"{url}/openapi.json"} <= set(foreign_requests.urls)
    assert chromium_page.evaluate("document.fonts.size") == 0


@pytest.mark.parametrize("prefix", ["", "/prefix"])
def test_request_form_shows_the_answer_of_the_serving_origin(
    chromium_page: Page, foreign_requests: PageRecord, serve: Serve, prefix: str
):
    models = LocalModels.start(ModelSpec(name="daily", backend_cls=Echo))
    app = create_app(models)
    url = serve(Starlette(routes=[Mount(prefix, app)]) if prefix else app) + prefix
    foreign_requests.allow(url)
    document = _open(chromium_page, url)
    operation = document["paths"]["/daily/time_series/forecast"]["post"]
    _reveal(chromium_page, document, operation)
    _section(chromium_page, operation["summary"]).get_by_role("button", name="Test Request").click()
    with chromium_page.expect_response(lambda response: response.request.method == "POST") as answer:
        chromium_page.get_by_role("button", name="Send").first.click()
    assert answer.value.url == f"{url}/daily/time_series/forecast"
    assert answer.value.status == 200
    # The text is read, and not only sent: the form asks for all encodings that the document names alike.
    shown = chromium_page.get_by_role("dialog")
    expect(shown).to_contain_text('"model_name": "daily"')
    expect(shown).to_contain_text('"mean": [')
    expect(shown).not_to_contain_text("Binary file")
    models.stop()
    assert foreign_requests.foreign == []
    assert foreign_requests.faults == []


def test_a_browser_that_opens_the_server_comes_to_the_page(
    chromium_page: Page, foreign_requests: PageRecord
) -> None:
    with EmbeddedServer(SPECS[:1], port=0) as server:
        foreign_requests.allow(server.url)
        chromium_page.goto(server.url)
        assert chromium_page.url == f"{server.url}/docs"
        chromium_page.locator("aside").first.get_by_role("link", name="ann", exact=True).wait_for()
    assert foreign_requests.faults == []


def test_recorder_catches_a_page_that_asks_elsewhere(
    chromium_page: Page, foreign_requests: PageRecord, serve: Serve
):
    async def careless(request: Request) -> HTMLResponse:
        style = f"@font-face{{font-family:x;src:url({FOREIGN})}} body{{font-family:x}}"
        script = "fetch('http://127.0.0.1:9/telemetry').catch(() => 0)"
        return HTMLResponse(f"<title>x</title><style>{style}</style>text<script>{script}</script>")

    url = serve(Starlette(routes=[Route("/", careless)]))
    foreign_requests.allow(url)
    chromium_page.goto(url)
    chromium_page.wait_for_load_state("networkidle")
    assert sorted(foreign_requests.foreign) == ["http://127.0.0.1:9/telemetry", FOREIGN]
    assert foreign_requests.fonts == [FOREIGN]


def test_policy_stops_a_page_that_asks_elsewhere(
    chromium_page: Page, foreign_requests: PageRecord, serve: Serve
):
    async def careless(request: Request) -> HTMLResponse:
        page = f"<style>@font-face{{font-family:x;src:url({FOREIGN})}} body{{font-family:x}}</style>text"
        return HTMLResponse(page, headers={"Content-Security-Policy": CONTENT_SECURITY_POLICY})

    url = serve(Starlette(routes=[Route("/", careless)]))
    foreign_requests.allow(url)
    with chromium_page.expect_console_message(lambda message: "Content Security Policy" in message.text):
        chromium_page.goto(url)
    assert any(FOREIGN in fault for fault in foreign_requests.faults)
