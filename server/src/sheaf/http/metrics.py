"""What Prometheus reads at `/metrics`: requests by model, route and outcome, and how long they took."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """Counts and times the requests of one app, in a registry of its own."""

    def __init__(self, app: ASGIApp, registry: CollectorRegistry) -> None:
        self._app = app
        labels = ["model", "route", "status"]
        self._requests = Counter("sheaf_requests_total", "Requests answered.", labels, registry=registry)
        self._seconds = Histogram(
            "sheaf_request_duration_seconds",
            "Time to the end of the answer.",
            labels[:2],
            buckets=_BUCKETS,
            registry=registry,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        started = time.perf_counter()
        try:
            await self._app(scope, receive, send_on)
        finally:
            # Names come from the router, so that a stranger's URLs cannot make new time series.
            model, route = scope.get("sheaf.model", ""), scope.get("sheaf.route", "other")
            self._requests.labels(model, route, str(status)).inc()
            self._seconds.labels(model, route).observe(time.perf_counter() - started)


def metrics_endpoint(registry: CollectorRegistry) -> Callable[[Request], Awaitable[Response]]:
    """The handler of `GET /metrics`."""

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return metrics
