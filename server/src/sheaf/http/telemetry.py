"""The layer around the whole app: every request is counted once, timed, logged and, where asked, traced."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sheaf.observability import Telemetry, tracing
from sheaf.observability.context import CURRENT, CurrentRequest

access = logging.getLogger("sheaf.access")

#: The status of a request whose client left before its answer was whole; it is in the counts alone.
CLIENT_LEFT = 499
#: Asked again and again by machines.
_POLLED = frozenset({"health", "ready", "metrics"})


class Observed:
    """Surrounds an app."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self._app = app
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        current, exchange = CurrentRequest(scope), _Exchange(receive, send)
        if scope["method"] == "POST":
            current.span = tracing.start_request(scope["headers"], scope["path"])
        token = CURRENT.set(current)
        inside = None if current.span is None else tracing.enter(current.span)
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:
            exchange.left = not exchange.complete
            raise
        finally:
            self._close(current, exchange, time.perf_counter() - started)
            tracing.leave(inside)
            CURRENT.reset(token)

    def _close(self, current: CurrentRequest, exchange: _Exchange, seconds: float) -> None:
        # Names come from the router, so that a stranger's URLs cannot make new time series.
        model, route, method = current.model, current.route, current.facts["method"]
        status = CLIENT_LEFT if exchange.left else current.failed or exchange.status
        self._telemetry.metrics.answered(model, route, status, seconds)
        code = "cancelled" if exchange.left else current.facts.get("sheaf.code")
        if code is not None and not current.calls and method == "POST" and not exchange.left:
            self._telemetry.metrics.refused(model, code)
        if current.span is not None:
            tracing.end_request(current.span, route, status, code)
        level = logging.DEBUG if route in _POLLED else logging.INFO
        if access.isEnabledFor(level):
            access.log(
                level,
                "%s %s %s %d %.1f ms",
                *(method, route, model or "-", status, 1000 * seconds),
                extra={"status": status, "seconds": round(seconds, 6)},
            )


class _Exchange:
    """What passes between the client and the app."""

    __slots__ = ("_receive", "_send", "complete", "left", "status")

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self.status = 500
        #: Whether the answer is whole, and whether the client left before.
        self.complete = self.left = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self.complete:
            self.left = True
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif message["type"] == "http.response.body" and not message.get("more_body"):
            self.complete = True
        await self._send(message)


def metrics_endpoint(telemetry: Telemetry) -> Callable[[Request], Awaitable[Response]]:
    """The handler of `GET /metrics`."""

    async def metrics(request: Request) -> Response:
        request.scope["sheaf.route"] = "metrics"
        return Response(telemetry.exposition(), media_type=CONTENT_TYPE_LATEST)

    return metrics
