"""Finds the handler of a call by its path's parts: the one thing every request does, so it must be cheap."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from sheaf.http.endpoints import Endpoint, Endpoints


class Calls:
    """The layer before the router that answers calls itself; everything else is the router's."""

    def __init__(self, app: ASGIApp, endpoints: Endpoints) -> None:
        self._app = app
        self._shared: Mapping[str, Endpoint] = {
            "predict": endpoints.predict,
            "stream": endpoints.stream,
            "batch": endpoints.batch,
        }
        self._operation: Endpoint = endpoints.operation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or scope.get("root_path"):
            await self._app(scope, receive, send)
            return
        match scope["path"].split("/"):
            case ["", name, call] if name and call in self._shared:
                endpoint = self._shared[call]
                scope["path_params"] = {"model_name": name}
            case ["", name, model_type, operation] if name and model_type and operation:
                endpoint = self._operation
                parts = {"model_name": name, "model_type": model_type, "operation": operation}
                scope["path_params"] = parts
            case _:
                await self._app(scope, receive, send)
                return
        response = await endpoint(Request(scope, receive, send))
        await response(scope, receive, send)


def call_routes(endpoints: Endpoints) -> list[Route]:
    """The same for the router: mounted apps, and the methods that a call does not take."""
    return [
        Route("/{model_name}/predict", endpoints.predict, methods=["POST"]),
        Route("/{model_name}/stream", endpoints.stream, methods=["POST"]),
        Route("/{model_name}/batch", endpoints.batch, methods=["POST"]),
        Route("/{model_name}/{model_type}/{operation}", endpoints.operation, methods=["POST"]),
    ]
