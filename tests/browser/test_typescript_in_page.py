"""The TypeScript client in a page: the browser bundle forecasts, streams and refuses at a real server.

The page comes from the server itself, and from another origin that the server lets in or does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp

from sheaf.embedded import EmbeddedServer
from sheaf.http import create_app
from sheaf.http.keys import Access, ApiKey, hash_of
from sheaf.http.limits import Limits
from sheaf.local import LocalModels
from sheaf.spec import ModelSpec
from tests.browser.page_record import PageRecord
from tests.echoes import Echo, Stepping

pytestmark = [pytest.mark.browser, pytest.mark.node]

MODELS = [ModelSpec(name="echo", backend_cls=Echo), ModelSpec(name="steps", backend_cls=Stepping)]
BUNDLE = Path(__file__).parents[2] / "clients/typescript/dist/browser.js"

SCRIPT = """
async (base) => {
  const { Sheaf, InvalidRequestError, ModelNotFoundError } = await import("/browser.js");
  const client = new Sheaf({ baseUrl: base });
  const wave = (i) => 10 * Math.sin((i * Math.PI) / 6) + ((i * 7919) % 13);
  const season = Array.from({ length: 48 }, (_, i) => 100 + i + wave(i));
  const forecast = await client.timeSeries.forecast({
    model: "statsforecast", history: season, horizon: 12, frequency: "1M",
    output_mode: "quantiles", quantile_levels: [0.1, 0.9],
  });
  const events = [];
  const stream = client.timeSeries.stream({ model: "steps", history: [3], horizon: 3, frequency: "1h" });
  for await (const event of stream) events.push(event.type);
  const faults = await client.timeSeries
    .forecast({ model: "statsforecast", history: [1, 2], horizon: 0, frequency: "1h" })
    .catch((error) => error instanceof InvalidRequestError && error.errors.map((f) => [f.code, f.path]));
  const missing = await client.timeSeries
    .forecast({ model: "nobody", history: [1, 2], horizon: 1, frequency: "1h" })
    .catch((error) => error instanceof ModelNotFoundError && error.status);
  return {
    mean: forecast.mean, low: forecast.quantiles["0.1"],
    events, final: (await stream.final()).mean, faults, missing,
    models: (await client.models.list()).map((m) => m.name),
  };
}
"""

#: Each way of calling, from a page of another origin; `predict` is what a page calls without the client.
CROSS_SCRIPT = """
async ([base, apiKey]) => {
  const { Sheaf, ModelNotFoundError } = await import("/browser.js");
  const client = new Sheaf({ baseUrl: base, apiKey, maxRetries: 0 });
  const asked = (model) => ({ model, history: [1, 2], horizon: 2, frequency: "1h" });
  const typed = await client.timeSeries.forecast(asked("echo"));
  const many = await client.timeSeries.forecastMany([asked("echo"), asked("echo")]);
  const stream = client.timeSeries.stream(asked("steps"));
  const events = [];
  for await (const event of stream) events.push(event.type);
  const answer = await fetch(`${base}/echo/predict`, {
    method: "POST",
    headers: { "content-type": "application/json", ...(apiKey && { authorization: `Bearer ${apiKey}` }) },
    body: JSON.stringify({ history: [1, 2], horizon: 2, frequency: "1h" }),
  });
  const missing = await client.timeSeries
    .forecast(asked("nobody"))
    .catch((error) => error instanceof ModelNotFoundError && error.status);
  return {
    typed: typed.mean, many: many.map((one) => one.mean), events, final: (await stream.final()).mean,
    predict: (await answer.json()).mean, id: answer.headers.get("x-request-id"), missing,
    models: (await client.models.list()).map((m) => m.name),
  };
}
"""
#: What became of one call.
ONE_SCRIPT = """
async ([base]) => {
  const { Sheaf } = await import("/browser.js");
  const client = new Sheaf({ baseUrl: base, maxRetries: 0 });
  return client.timeSeries
    .forecast({ model: "echo", history: [1, 2], horizon: 2, frequency: "1h" })
    .then(() => "answered", (error) => error.name);
}
"""


@pytest.fixture
def page_app() -> Iterator[Starlette]:
    """A page of one's own beside the app of the server."""
    models = LocalModels.start(["statsforecast", ModelSpec(name="steps", backend_cls=Stepping)])
    yield Starlette(routes=[*_page_routes(), Mount("/", create_app(models))])
    models.stop()


def _page_routes() -> list[Route]:
    """A page, and the bundle that it imports."""
    if not BUNDLE.is_file():
        pytest.fail(f"{BUNDLE} is missing: run `npm ci && npm run build` in clients/typescript")

    async def page(_: Request) -> Response:
        return HTMLResponse(
            '<!doctype html><html lang="en"><link rel="icon" href="data:,"><title>A page</title></html>'
        )

    async def bundle(_: Request) -> Response:
        return Response(BUNDLE.read_bytes(), media_type="text/javascript")

    return [Route("/page", page), Route("/browser.js", bundle)]


def test_the_client_works_in_a_page(
    page_app: Starlette, serve: Callable[[ASGIApp], str], chromium_page: Page, foreign_requests: PageRecord
) -> None:
    url = serve(page_app)
    foreign_requests.allow(url)
    chromium_page.goto(f"{url}/page")
    result: dict[str, Any] = chromium_page.evaluate(SCRIPT, url)
    assert len(result["mean"]) == len(result["low"]) == 12
    assert all(low < mean for low, mean in zip(result["low"], result["mean"], strict=True))
    assert result["events"] == ["progress"] * 3 + ["result"]
    assert result["final"] == [3, 3, 3]
    assert result["faults"] == [["out_of_range", "/horizon"]]
    assert result["missing"] == 404
    assert result["models"] == ["statsforecast", "steps"]
    assert foreign_requests.foreign == []


@pytest.mark.parametrize("key", [None, "secret"], ids=["open", "keys"])
def test_the_client_works_in_a_page_of_another_origin(
    key: str | None,
    serve: Callable[[ASGIApp], str],
    chromium_page: Page,
    foreign_requests: PageRecord,
) -> None:
    origin = serve(Starlette(routes=_page_routes()))
    keys = () if key is None else (ApiKey(name="ann", sha256=hash_of(key)),)
    with EmbeddedServer(MODELS, port=0, limits=Limits(origins=(origin,)), access=Access(keys=keys)) as server:
        foreign_requests.allow(origin)
        foreign_requests.allow(server.url)
        chromium_page.goto(f"{origin}/page")
        result: dict[str, Any] = chromium_page.evaluate(CROSS_SCRIPT, [server.url, key])
    assert result["typed"] == result["predict"] == result["final"] == [2, 2]
    assert result["many"] == [[2, 2], [2, 2]]
    assert result["events"] == ["progress"] * 2 + ["result"]
    assert result["id"]
    assert result["missing"] == 404
    assert result["models"] == ["echo", "steps"]
    assert foreign_requests.foreign == []
    assert [fault for fault in foreign_requests.faults if "404" not in fault] == []


def test_a_page_of_an_origin_that_is_not_let_in_gets_no_answer(
    serve: Callable[[ASGIApp], str], chromium_page: Page, foreign_requests: PageRecord
) -> None:
    origin = serve(Starlette(routes=_page_routes()))
    with EmbeddedServer(MODELS, port=0, limits=Limits(origins=("https://app.example.org",))) as server:
        foreign_requests.allow(origin)
        foreign_requests.allow(server.url)
        chromium_page.goto(f"{origin}/page")
        assert chromium_page.evaluate(ONE_SCRIPT, [server.url]) == "ConnectionFailedError"
    assert any("CORS" in fault for fault in foreign_requests.faults)
