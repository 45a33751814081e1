"""The TypeScript client in a page: the browser bundle forecasts, streams and refuses at a real server."""

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

from sheaf.http import create_app
from sheaf.local import LocalModels
from sheaf.spec import ModelSpec
from tests.backends import Stepping
from tests.browser.page_record import PageRecord

pytestmark = [pytest.mark.browser, pytest.mark.node]

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


@pytest.fixture
def page_app() -> Iterator[Starlette]:
    """A page of one's own beside the app of the server."""
    if not BUNDLE.is_file():
        pytest.fail(f"{BUNDLE} is missing: run `npm ci && npm run build` in clients/typescript")
    models = LocalModels.start(["statsforecast", ModelSpec(name="steps", backend_cls=Stepping)])

    async def page(_: Request) -> Response:
        return HTMLResponse(
            '<!doctype html><html lang="en"><link rel="icon" href="data:,"><title>A page</title></html>'
        )

    async def bundle(_: Request) -> Response:
        return Response(BUNDLE.read_bytes(), media_type="text/javascript")

    yield Starlette(
        routes=[Route("/page", page), Route("/browser.js", bundle), Mount("/", create_app(models))]
    )
    models.stop()


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
