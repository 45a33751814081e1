"""Counts, times, logs and, where asked, traces every request over HTTP, once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextvars import Token
from typing import Any

import anyio.to_thread
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response

from sheaf.http.exchange import Exchange
from sheaf.observability import Telemetry, tracing
from sheaf.observability.context import CURRENT, CurrentRequest

access = logging.getLogger("sheaf.access")

#: The status of a request whose client left before its answer was whole; it is in the counts alone.
CLIENT_LEFT = 499
#: Asked again and again, by machines.
_POLLED = frozenset({"health", "ready", "metrics", "preflight"})


class Observed:
    """One request, from here to its `end`: what runs inside of it is on its behalf."""

    __slots__ = ("_exchange", "_inside", "_started", "_telemetry", "_token")

    def __init__(self, telemetry: Telemetry, exchange: Exchange) -> None:
        self._telemetry, self._exchange = telemetry, exchange
        self._started = time.perf_counter()
        if exchange.method == "POST":
            exchange.span = tracing.start_request(exchange.headers, exchange.path)

    def __enter__(self) -> None:
        exchange = self._exchange
        self._token: Token[CurrentRequest | None] = CURRENT.set(exchange)
        self._inside: Any = None if exchange.span is None else tracing.enter(exchange.span)

    def __exit__(self, *_: object) -> None:
        if self._inside is not None:
            tracing.leave(self._inside)
        CURRENT.reset(self._token)

    def end(self) -> None:
        """Count, log and trace it; once, inside of it."""
        exchange, seconds = self._exchange, time.perf_counter() - self._started
        # Names come from the routes, so that a stranger's URLs cannot make new time series.
        model, route, method = exchange.model, exchange.route, exchange.method
        status = CLIENT_LEFT if exchange.left else exchange.failed or exchange.status
        self._telemetry.metrics.answered(model, route, status, seconds)
        code = "cancelled" if exchange.left else exchange.code
        if code is not None and not exchange.calls and method == "POST" and not exchange.left:
            self._telemetry.metrics.refused(model, code)
        if exchange.span is not None:
            tracing.end_request(exchange.span, route, status, code)
        level = logging.DEBUG if route in _POLLED else logging.INFO
        if access.isEnabledFor(level):
            access.log(
                level,
                "%s %s %s %d %.1f ms",
                *(method, route, model or "-", status, 1000 * seconds),
                extra={"status": status, "seconds": round(seconds, 6)},
            )


def metrics_endpoint(telemetry: Telemetry) -> Callable[[Request], Awaitable[Response]]:
    """The handler of `GET /metrics`."""
    # Milliseconds for each model: nobody waits for it but who asks, and those take turns.
    turns = asyncio.Semaphore(1)

    async def metrics(request: Request) -> Response:
        exchange: Exchange = request.scope["sheaf.exchange"]
        exchange.route = "metrics"
        caller = exchange.caller
        # Of other models, and of what is no model's, a key for some alone is told nothing.
        shown = caller.may_call if caller is not None and caller.confined else None
        async with turns:
            text = await anyio.to_thread.run_sync(telemetry.exposition, shown)
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    return metrics
