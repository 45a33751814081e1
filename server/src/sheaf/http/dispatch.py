"""Finds the handler of a call by its path's parts: the one thing every request does, so it must be cheap."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from sheaf.http.endpoints import Endpoints
from sheaf.http.exchange import Exchange

#: Begins to answer an exchange, or raises; what it gives is to be awaited.
_Endpoint: TypeAlias = Callable[[Exchange, str], Awaitable[None]]


class Dispatcher:
    """The calls of models among all requests; everything else is the router's."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._shared: Mapping[str, _Endpoint] = {
            "predict": endpoints.predict,
            "stream": endpoints.stream,
            "batch": endpoints.batch,
        }
        self._operation = endpoints.operation

    def begin(self, exchange: Exchange, otherwise: Callable[[Exchange], Awaitable[None]]) -> Awaitable[None]:
        """Do what a call needs as far as that takes no waiting, and give what is left to be awaited.

        `otherwise` has what is no call.
        """
        if exchange.method != "POST":
            return otherwise(exchange)
        _, name, *rest = exchange.path.split("/") if exchange.path.startswith("/") else ("", "")
        if name and len(rest) == 2 and rest[0] and rest[1]:
            return self._operation(exchange, name, *rest)
        if name and len(rest) == 1 and (endpoint := self._shared.get(rest[0])) is not None:
            return endpoint(exchange, name)
        return otherwise(exchange)


def call_routes(endpoints: Endpoints) -> list[Route]:
    """The same for the router, which tells the methods that a call does not take."""
    return [
        Route("/{model_name}/predict", _Routed(endpoints.predict), methods=["POST"]),
        Route("/{model_name}/stream", _Routed(endpoints.stream), methods=["POST"]),
        Route("/{model_name}/batch", _Routed(endpoints.batch), methods=["POST"]),
        Route("/{model_name}/{model_type}/{operation}", _Routed(endpoints.operation), methods=["POST"]),
    ]


class _Routed:
    """An endpoint as the router calls it."""

    def __init__(self, endpoint: Callable[..., Awaitable[None]]) -> None:
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - the exchange has them
        await self._endpoint(scope["sheaf.exchange"], **scope["path_params"])
