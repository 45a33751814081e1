"""Builds the ASGI app over the models of one process. It serves the schema's routes and infers nothing.

POST /{model_name}/{model_type}/{operation} · /predict · /stream · /batch
GET  /{model_name}/health · /ready          GET /models · /metrics · /docs · /openapi.json
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import anyio
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Lifespan

from sheaf.engine import ModelRuntime
from sheaf.engine.streams import Event
from sheaf.http.bodies import OFFLOAD, decode, decode_value, parse_batch, parsed, read_body
from sheaf.http.docs import docs_routes
from sheaf.http.encodings import MIN_COMPRESSED, compressed, encode_batch, encode_response
from sheaf.http.operations import AnyOperation, Operations, operations_of
from sheaf.http.problems import ProblemBoundary, as_problem, on_http_exception
from sheaf.http.telemetry import Observed, metrics_endpoint
from sheaf.observability import Telemetry
from sheaf_client import ProblemError, ResultEvent
from sheaf_client._binary import binary_size
from sheaf_client.contracts.base import BaseRequest
from sheaf_client.contracts.events import ErrorEvent
from sheaf_client.contracts.models import Health, ModelList
from sheaf_client.contracts.problem import Fault
from sheaf_client.errors import InvalidRequestError, NotFoundError, UnavailableError

T = TypeVar("T")
JSON = "application/json"
MAX_TIMEOUT = 86400.0


@dataclass(frozen=True)
class Limits:
    """What a server accepts. Sizes in bytes, times in seconds."""

    max_body: int = 32 * 2**20
    #: Longest a request may take that names no deadline of its own.
    timeout: float | None = None
    #: Pause after which a silent stream sends a comment, so that proxies keep it open.
    keep_alive: int = 15
    #: Origins whose pages may call this server from a browser, such as `https://app.example.org`; none.
    origins: tuple[str, ...] = ()


class Models(Protocol):
    """What the app needs of its host: models by name, and what to say of them."""

    def get(self, name: str) -> ModelRuntime: ...

    def list(self) -> ModelList: ...

    @property
    def telemetry(self) -> Telemetry: ...


def create_app(
    models: Models, *, limits: Limits | None = None, lifespan: Lifespan[Any] | None = None
) -> ASGIApp:
    """The app over `models`. Loading and stopping them is the host's business, in `lifespan` or before."""
    limits = limits or Limits()
    endpoints = _Endpoints(models, limits)
    routes = [
        Route("/models", endpoints.list_models, methods=["GET"]),
        Route("/metrics", metrics_endpoint(models.telemetry), methods=["GET"]),
        *docs_routes(),
        Route("/{model_name}/health", endpoints.health, methods=["GET"]),
        Route("/{model_name}/ready", endpoints.ready, methods=["GET"]),
        Route("/{model_name}/predict", endpoints.predict, methods=["POST"]),
        Route("/{model_name}/stream", endpoints.stream, methods=["POST"]),
        Route("/{model_name}/batch", endpoints.batch, methods=["POST"]),
        Route("/{model_name}/{model_type}/{operation}", endpoints.operation, methods=["POST"]),
    ]
    middleware = [Middleware(Observed, telemetry=models.telemetry), Middleware(ProblemBoundary)]
    if limits.origins:
        # Outermost, so that refusals can be read by pages too.
        middleware.insert(
            0,
            Middleware(
                CORSMiddleware,
                allow_origins=list(limits.origins),
                allow_methods=["GET", "POST"],
                allow_headers=["*"],
                expose_headers=["x-request-id", "retry-after"],
            ),
        )
    return Starlette(
        routes=routes,
        middleware=middleware,
        exception_handlers={HTTPException: on_http_exception},
        lifespan=lifespan,
    )


class _Endpoints:
    def __init__(self, models: Models, limits: Limits) -> None:
        self._models = models
        self._limits = limits

    async def list_models(self, request: Request) -> Response:
        request.scope["sheaf.route"] = "models"
        # A host may have to ask others for it, so not on the event loop.
        models = await anyio.to_thread.run_sync(self._models.list)
        return Response(models.model_dump_json(), media_type=JSON)

    async def health(self, request: Request) -> Response:
        self._runtime(request, "health")
        return Response(Health(status="ok").model_dump_json(), media_type=JSON)

    async def ready(self, request: Request) -> Response:
        if not self._runtime(request, "ready").ready:
            raise UnavailableError("The model is loading.", retry_after=1)
        return Response(Health(status="ready").model_dump_json(), media_type=JSON)

    async def operation(self, request: Request) -> Response:
        runtime = self._runtime(request, "operation")
        model_type = request.path_params["model_type"]
        operation = operations_of(model_type).named(request.path_params["operation"])
        if operation is None or model_type != runtime.spec.model_type:
            raise NotFoundError(
                f"{runtime.spec.name} serves no such operation; it is a {runtime.spec.model_type} model."
            )
        return await self._predict(request, runtime, operation)

    async def predict(self, request: Request) -> Response:
        runtime = self._runtime(request, "predict")
        return await self._predict(request, runtime, None)

    async def _predict(
        self, request: Request, runtime: ModelRuntime, operation: AnyOperation | None
    ) -> Response:
        timeout = self._timeout(request)
        contract = await self._read(request, runtime, operation)
        answer = await while_connected(request, partial(runtime.predict, contract, timeout=timeout))
        return await _answer(request, partial(encode_response, answer, request.headers))

    async def batch(self, request: Request) -> Response:
        runtime = self._runtime(request, "batch")
        operations = operations_of(runtime.spec.model_type)
        timeout = self._timeout(request)
        items = parse_batch(await read_body(request, self._limits.max_body))
        read = [_attempt(item, operations, runtime.spec.name) for item in items]
        for item in read:
            if isinstance(item, ProblemError):
                self._models.telemetry.refused(runtime.spec.name, item.code)
        sound = [item for item in read if not isinstance(item, ProblemError)]
        answers = iter(await while_connected(request, partial(runtime.predict_many, sound, timeout=timeout)))
        outcomes = [item if isinstance(item, ProblemError) else next(answers) for item in read]
        return await _answer(request, partial(encode_batch, outcomes, request.headers))

    async def stream(self, request: Request) -> Response:
        runtime = self._runtime(request, "stream")
        timeout = self._timeout(request)
        contract = await self._read(request, runtime, None)
        events = runtime.stream(contract, timeout=timeout)
        # The first event is awaited here, so that a refusal still has a status of its own.
        first = await anext(events)
        return EventSourceResponse(
            _server_sent(first, events), ping=self._limits.keep_alive, headers={"cache-control": "no-store"}
        )

    async def _read(
        self, request: Request, runtime: ModelRuntime, operation: AnyOperation | None
    ) -> BaseRequest:
        """The contract in the body: of the operation, or where there is none of that which the body names."""
        runtime.check_open()
        body = await read_body(request, self._limits.max_body)
        if operation is None:
            operations = operations_of(runtime.spec.model_type)
            operation = operations.only or operations.asked_for(await parsed(body))
        contract: BaseRequest = await decode(body, operation.request, runtime.spec.name)
        if "x-request-id" not in request.headers:
            request.scope["sheaf.request_id"] = str(contract.request_id)
        return contract

    def _runtime(self, request: Request, route: str) -> ModelRuntime:
        request.scope["sheaf.route"] = route
        runtime = self._models.get(request.path_params["model_name"])
        request.scope["sheaf.model"] = runtime.spec.name
        return runtime

    def _timeout(self, request: Request) -> float | None:
        given = request.headers.get("x-sheaf-timeout")
        if given is None:
            return self._limits.timeout
        try:
            seconds = float(given)
        except ValueError:
            seconds = math.nan
        if not 0 < seconds <= MAX_TIMEOUT:
            fault = Fault(
                code="out_of_range",
                path="",
                message=f"X-Sheaf-Timeout must be seconds in (0, {MAX_TIMEOUT:g}].",
            )
            raise InvalidRequestError("The deadline header is invalid.", errors=[fault])
        return seconds


async def while_connected(request: Request, work: Callable[[], Awaitable[T]]) -> T:
    """Await `work`, and cancel it when the client goes away, so that its place in line is free."""
    result: list[T] = []
    failure: list[Exception] = []

    async def run() -> None:
        try:
            result.append(await work())
        except Exception as error:  # noqa: BLE001 - raised below, outside of the task group
            failure.append(error)
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        while (await request.receive())["type"] != "http.disconnect":
            pass
        group.cancel_scope.cancel()
    if failure:
        raise failure[0]
    if not result:
        raise UnavailableError("The client went away.")
    return result[0]


async def _server_sent(first: Event, rest: AsyncGenerator[Event, None]) -> AsyncIterator[ServerSentEvent]:
    """The events in their order on the wire, each with its number; an error is the last event."""
    number = 0
    try:
        yield await _event(first, number)
        async for event in rest:
            number += 1
            yield await _event(event, number)
    except Exception as error:  # noqa: BLE001 - the status is long sent; the stream itself must say it
        problem = as_problem(error).to_problem()
        yield ServerSentEvent(
            ErrorEvent(problem=problem).model_dump_json(exclude_none=True), event="error", id=str(number + 1)
        )
    finally:
        await rest.aclose()


async def _event(event: Event, number: int) -> ServerSentEvent:
    told = event.response if isinstance(event, ResultEvent) else event
    # Others are served while tensors and files become text.
    large = binary_size(told) > OFFLOAD
    data = await anyio.to_thread.run_sync(told.model_dump_json) if large else told.model_dump_json()
    if isinstance(event, ResultEvent):
        data = '{"type":"result","done":true,' + data[1:]
    return ServerSentEvent(data, event=event.type, id=str(number))


async def _answer(request: Request, encode: Callable[[], tuple[bytes, str]]) -> Response:
    """The encoded answer; large ones are compressed on a worker thread where the caller takes that."""
    content, media = encode()
    headers = {"vary": "accept, accept-encoding"}
    if len(content) >= MIN_COMPRESSED:
        content, more = await anyio.to_thread.run_sync(compressed, content, request.headers)
        headers |= more
    return Response(content, media_type=media, headers=headers)


def _attempt(item: Any, operations: Operations, model_name: str) -> BaseRequest | ProblemError:
    try:
        kind: type[BaseRequest] = operations.asked_for(item).request
        return decode_value(item, kind, model_name)
    except ProblemError as error:
        return error
