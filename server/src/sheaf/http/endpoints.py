"""What each route of the app does: read a contract, hand it to the model, write its answer."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Protocol, TypedDict

import anyio
import anyio.to_thread
from starlette.requests import Request
from starlette.responses import Response

from sheaf.engine import ModelRuntime
from sheaf.http.bodies import Incoming, decode, decode_value, offload, parse_batch, parsed, read_body
from sheaf.http.connections import while_connected
from sheaf.http.encodings import JSON_TYPE, MIN_COMPRESSED, compressed, encode_batch, encode_response
from sheaf.http.events import event_response
from sheaf.http.gate import Caller
from sheaf.http.limits import Limits
from sheaf.http.media import check_media
from sheaf.http.operations import AnyOperation, Operations, operations_of
from sheaf.http.problems import header
from sheaf.observability import Telemetry
from sheaf_client import ProblemError
from sheaf_client.contracts.base import BaseRequest
from sheaf_client.contracts.models import Health, ModelList
from sheaf_client.contracts.problem import Fault
from sheaf_client.errors import InvalidRequestError, NotFoundError, UnavailableError

MAX_TIMEOUT = 86400.0
Endpoint = Callable[[Request], Awaitable[Response]]


class Models(Protocol):
    """What the app needs of its host: models by name, and what to say of them."""

    def get(self, name: str) -> ModelRuntime: ...

    def list(self) -> ModelList: ...

    @property
    def telemetry(self) -> Telemetry: ...


class Terms(TypedDict):
    """On what terms a request is answered, as runtimes take them."""

    timeout: float | None
    priority: int
    tenant: str


class Endpoints:
    """The handlers of all routes over models of this process."""

    def __init__(self, models: Models, limits: Limits, incoming: Incoming) -> None:
        self._models = models
        self._limits = limits
        self._incoming = incoming

    async def list_models(self, request: Request) -> Response:
        request.scope["sheaf.route"] = "models"
        # A host may have to ask others for it, so not on the event loop.
        models = await anyio.to_thread.run_sync(self._models.list)
        caller: Caller = request.scope["sheaf.caller"]
        seen = [model for model in models.models if caller.may_call(model.name)]
        return Response(ModelList(models=seen).model_dump_json(), media_type=JSON_TYPE)

    async def health(self, request: Request) -> Response:
        self._runtime(request, "health")
        return Response(Health(status="ok").model_dump_json(), media_type=JSON_TYPE)

    async def ready(self, request: Request) -> Response:
        if not self._runtime(request, "ready").ready:
            raise UnavailableError("The model is loading.", retry_after=1)
        return Response(Health(status="ready").model_dump_json(), media_type=JSON_TYPE)

    async def operation(self, request: Request) -> Response:
        runtime, terms = self._call(request, "operation")
        model_type = request.path_params["model_type"]
        operation = operations_of(model_type).named(request.path_params["operation"])
        if operation is None or model_type != runtime.spec.model_type:
            raise NotFoundError(
                f"{runtime.spec.name} serves no such operation; it is a {runtime.spec.model_type} model."
            )
        return await self._predict(request, runtime, operation, terms)

    async def predict(self, request: Request) -> Response:
        runtime, terms = self._call(request, "predict")
        return await self._predict(request, runtime, None, terms)

    async def _predict(
        self, request: Request, runtime: ModelRuntime, operation: AnyOperation | None, terms: Terms
    ) -> Response:
        contract = await self._read(request, runtime, operation)
        answer = await while_connected(request.receive, runtime.predict(contract, **terms))
        request.scope["sheaf.caller"].charge(answer)
        return await _answer(request, *encode_response(answer, header(request.scope, b"accept")))

    async def batch(self, request: Request) -> Response:
        runtime, terms = self._call(request, "batch")
        operations = operations_of(runtime.spec.model_type)
        runtime.check_open()
        body = await read_body(request, self._limits, self._incoming)
        items = await offload(len(body.content), partial(parse_batch, body, self._limits.max_batch))
        caller: Caller = request.scope["sheaf.caller"]
        if caller.account is not None:
            caller.account.take_more(len(items) - 1)

        def read_all() -> list[BaseRequest | ProblemError]:
            return [self._attempt(item, operations, runtime.spec.name) for item in items]

        read = await offload(len(body.content), read_all)
        for item in read:
            if isinstance(item, ProblemError):
                self._models.telemetry.refused(runtime.spec.name, item.code)
        sound = [item for item in read if not isinstance(item, ProblemError)]
        answers = await while_connected(request.receive, runtime.predict_many(sound, **terms))
        for answer in answers:
            if not isinstance(answer, ProblemError):
                caller.charge(answer)
        rest = iter(answers)
        outcomes = [item if isinstance(item, ProblemError) else next(rest) for item in read]
        return await _answer(request, *encode_batch(outcomes, header(request.scope, b"accept")))

    async def stream(self, request: Request) -> Response:
        runtime, terms = self._call(request, "stream")
        contract = await self._read(request, runtime, None)
        events = runtime.stream(contract, **terms)
        # The first event is awaited here, so that a refusal still has a status of its own.
        first = await while_connected(request.receive, anext(events))
        return event_response(first, events, self._limits, request.scope["sheaf.caller"])

    async def _read(
        self, request: Request, runtime: ModelRuntime, operation: AnyOperation | None
    ) -> BaseRequest:
        """The contract in the body: of the operation, or where there is none of that which the body names."""
        runtime.check_open()
        body = await read_body(request, self._limits, self._incoming)
        if operation is None:
            operations = operations_of(runtime.spec.model_type)
            operation = operations.only or operations.asked_for(await parsed(body))
        contract: BaseRequest = await decode(body, operation.request, runtime.spec.name)
        if not header(request.scope, b"x-request-id"):
            request.scope["sheaf.request_id"] = str(contract.request_id)
        check_media(contract, self._limits)
        return contract

    def _attempt(self, item: Any, operations: Operations, model_name: str) -> BaseRequest | ProblemError:
        try:
            kind: type[BaseRequest] = operations.asked_for(item).request
            contract = decode_value(item, kind, model_name)
            check_media(contract, self._limits)
        except ProblemError as error:
            return error
        return contract

    def _call(self, request: Request, route: str) -> tuple[ModelRuntime, Terms]:
        """The model that is called, where the caller may, and the terms of the call."""
        caller: Caller = request.scope["sheaf.caller"]
        # Before the model is looked up, so that a key does not tell which others there are.
        caller.check_model(request.path_params["model_name"])
        runtime = self._runtime(request, route)
        timeout, priority = self._timeout(request), caller.priority(request.scope)
        return runtime, Terms(timeout=timeout, priority=priority, tenant=caller.tenant)

    def _runtime(self, request: Request, route: str) -> ModelRuntime:
        request.scope["sheaf.route"] = route
        runtime = self._models.get(request.path_params["model_name"])
        request.scope["sheaf.model"] = runtime.spec.name
        return runtime

    def _timeout(self, request: Request) -> float | None:
        given = header(request.scope, b"x-sheaf-timeout")
        if not given:
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


class Answer(Response):
    """An encoded answer. Its head is written here: what Starlette does for any response costs more."""

    def __init__(self, content: bytes, media: bytes, encoding: bytes | None = None) -> None:
        self.status_code = 200
        self.background = None
        self.body = content
        self.raw_headers = [
            (b"content-length", b"%d" % len(content)),
            (b"content-type", media),
            (b"vary", b"accept, accept-encoding"),
        ]
        if encoding:
            self.raw_headers.append((b"content-encoding", encoding))


async def _answer(request: Request, content: bytes, media: str) -> Response:
    """The encoded answer; large ones are compressed on a worker thread where the caller takes that."""
    if len(content) >= MIN_COMPRESSED:
        accepted = header(request.scope, b"accept-encoding")
        packed = await anyio.to_thread.run_sync(compressed, content, accepted)
        if packed is not None:
            return Answer(packed, media.encode("ascii"), b"zstd")
    return Answer(content, media.encode("ascii"))
