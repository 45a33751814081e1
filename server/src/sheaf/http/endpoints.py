"""What each route of the app does: read a contract, hand it to the model, write its answer."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Sequence
from functools import partial
from typing import Any, Protocol

import anyio
import anyio.to_thread
from starlette.requests import Request
from starlette.responses import Response

from sheaf.contract.decoding import decode_value
from sheaf.contract.operations import AnyOperation, Operations
from sheaf.engine import ModelRuntime
from sheaf.engine.malloc_tuning import give_back
from sheaf.engine.terms import CallOptions
from sheaf.http.answering import Answering, answer_compressed
from sheaf.http.batches import PART, batch_parts, compressed_parts, rest_of
from sheaf.http.bodies import (
    FREE,
    OFFLOAD,
    SLOW,
    Body,
    body_at_once,
    decode,
    decode_at_once,
    offload,
    parse_batch,
    parsed,
    read_body,
)
from sheaf.http.callers import Caller
from sheaf.http.connections import while_connected
from sheaf.http.encodings import (
    JSON_TYPE,
    compressed,
    content_type,
    wants_msgpack,
)
from sheaf.http.events import event_response
from sheaf.http.exchange import Exchange
from sheaf.http.limits import Limits
from sheaf.http.media import check_media
from sheaf.http.memory import LARGE, Memory, Share
from sheaf.http.nesting import Names
from sheaf.http.problems import as_problem
from sheaf.http.writing import size_of
from sheaf.observability import Telemetry
from sheaf_client.contracts.base import BaseRequest
from sheaf_client.contracts.models import Health, ModelInfo, ModelList
from sheaf_client.contracts.problem import Fault
from sheaf_client.errors import (
    InvalidRequestError,
    ModelNotFoundError,
    NotFoundError,
    PermissionDeniedError,
    ProblemError,
    UnavailableError,
)

MAX_TIMEOUT = 86400.0
#: Most models that a refusal names.
_MAX_NAMED = 10


class Models(Protocol):
    """What the app needs of its host: models by name, and what to say of them."""

    def get(self, name: str) -> ModelRuntime: ...

    def list(self) -> ModelList: ...

    def known(self) -> Sequence[str]:
        """Names that can be said at once, on an event loop; none where others must be asked for them."""
        ...

    @property
    def telemetry(self) -> Telemetry: ...


class Endpoints:
    """The handlers of all routes over models of this process."""

    def __init__(self, models: Models, limits: Limits, memory: Memory) -> None:
        self._models = models
        self._limits = limits
        self._memory = memory

    async def list_models(self, request: Request) -> Response:
        request.scope["sheaf.exchange"].route = "models"
        models = await self.seen_models(request)
        return Response(ModelList(models=models).model_dump_json(), media_type=JSON_TYPE)

    async def seen_models(self, request: Request) -> list[ModelInfo]:
        """The models that the caller may call."""
        # A host may have to ask others for it, so not on the event loop.
        models = await anyio.to_thread.run_sync(self._models.list)
        caller = _caller(request.scope["sheaf.exchange"])
        return [model for model in models.models if caller.may_call(model.name)]

    async def health(self, request: Request) -> Response:
        self._runtime(request.scope["sheaf.exchange"], request.path_params["model_name"], "health")
        return Response(Health(status="ok").model_dump_json(exclude_none=True), media_type=JSON_TYPE)

    async def ready(self, request: Request) -> Response:
        name: str = request.path_params["model_name"]
        if not self._runtime(request.scope["sheaf.exchange"], name, "ready").ready:
            raise UnavailableError("The model is loading.", retry_after=1)
        return Response(Health(status="ready", model=name).model_dump_json(), media_type=JSON_TYPE)

    def operation(
        self, exchange: Exchange, model_name: str, model_type: str, operation: str
    ) -> Awaitable[None]:
        runtime, terms = self._call(exchange, model_name, "operation")
        found = runtime.operations.named(operation) if model_type == runtime.spec.model_type else None
        if found is None:
            raise NotFoundError(
                f"{runtime.spec.name} serves no such operation; it is a {runtime.spec.model_type} model."
            )
        return self._begin(exchange, runtime, found, terms)

    def predict(self, exchange: Exchange, model_name: str) -> Awaitable[None]:
        runtime, terms = self._call(exchange, model_name, "predict")
        return self._begin(exchange, runtime, runtime.operations.only, terms)

    def _begin(
        self, exchange: Exchange, runtime: ModelRuntime, operation: AnyOperation | None, terms: CallOptions
    ) -> Awaitable[None]:
        """Put a call to its model at once where that takes no waiting: most bodies are there, and small."""
        runtime.check_open(room=True)
        share = _share(exchange)
        body = body_at_once(exchange, self._limits, share) if operation is not None else None
        if body is None or operation is None:
            return self._read_and_ask(exchange, runtime, operation, terms)
        contract = decode_at_once(body, operation.request, runtime.spec.name)
        if contract is None:
            return self._decode_and_ask(exchange, runtime, body, operation, terms)
        contract = self._checked(contract, exchange)
        body.settle()
        if (size := runtime.answer_size(contract)) > FREE:
            share.expect(size)
        return Answering(exchange, runtime.ask(contract, **terms), self._memory)

    async def _decode_and_ask(
        self,
        exchange: Exchange,
        runtime: ModelRuntime,
        body: Body,
        operation: AnyOperation,
        terms: CallOptions,
    ) -> None:
        contract = await self._read_contract(exchange, runtime, body, operation)
        asked = runtime.ask(contract, **terms)
        del contract  # gone before its answer is
        await Answering(exchange, asked, self._memory)

    async def _read_and_ask(
        self, exchange: Exchange, runtime: ModelRuntime, operation: AnyOperation | None, terms: CallOptions
    ) -> None:
        contract, large = await self._read(exchange, runtime, operation)
        asked = await runtime.ask_aside(contract, **terms) if large else runtime.ask(contract, **terms)
        del contract  # gone before its answer is
        await Answering(exchange, asked, self._memory)

    async def batch(self, exchange: Exchange, model_name: str) -> None:
        runtime, terms = self._call(exchange, model_name, "batch")
        runtime.check_open()
        read, large = await self._read_batch(exchange, runtime)
        for item in read:
            if isinstance(item, ProblemError):
                self._models.telemetry.refused(runtime.spec.name, item.code)
        sound = [item for item in read if not isinstance(item, ProblemError)]
        answers = iter(
            await while_connected(exchange.receive, runtime.predict_many(sound, large=large, **terms))
        )
        outcomes = [item if isinstance(item, ProblemError) else next(answers) for item in read]
        del read, sound, answers  # what is written is let go of, one by one
        await self._answer_batch(exchange, outcomes)

    async def _read_batch(
        self, exchange: Exchange, runtime: ModelRuntime
    ) -> tuple[list[BaseRequest | ProblemError], bool]:
        """The contracts of a batch, and why there is none, and whether work on them would hold others up.

        What all their answers take is held.
        """
        share = _share(exchange)
        names = Names.of_batch(self._limits.max_batch)
        body = await read_body(exchange, self._limits, self._memory, share, names)
        size = len(body.content)
        items = await offload(
            size, partial(parse_batch, body, self._limits.max_batch), self._memory, share, most=SLOW
        )
        caller = _caller(exchange)
        if caller.account is not None:
            caller.account.take_more(len(items) - 1)

        def read_all() -> list[BaseRequest | ProblemError]:
            return [self._attempt(item, runtime.operations, runtime.spec.name) for item in items]

        read = await offload(size, read_all, self._memory, share, most=SLOW)
        await self._settle(body)
        sound = [item for item in read if not isinstance(item, ProblemError)]
        _expect(share, sum(map(runtime.answer_size, sound)))
        return read, size > OFFLOAD

    async def _answer_batch(self, exchange: Exchange, outcomes: list[Any]) -> None:
        """Send the answers one by one where they are large, each once the client has taken the last."""
        packed = wants_msgpack(exchange.header(b"accept"))
        parts, media = batch_parts(outcomes, packed=packed), content_type(packed=packed)
        size = sum(size_of(each) for each in outcomes if not isinstance(each, ProblemError))
        share = _share(exchange)
        first = await offload(max(size, share.size), partial(next, parts), self._memory, share)
        if not outcomes:
            await answer_compressed(exchange, first + b"".join(parts), media)
            return
        rest, accepted = rest_of(first, parts, self._memory, share), exchange.header(b"accept-encoding")
        # A long answer is compressed as a whole where its first part shrinks.
        if compressed(first[:PART], accepted) is not None:
            await exchange.answer_in_parts(compressed_parts(rest), media, b"zstd")
        else:
            await exchange.answer_in_parts(rest, media)

    async def stream(self, exchange: Exchange, model_name: str) -> None:
        runtime, terms = self._call(exchange, model_name, "stream")
        runtime.check_open(room=True)
        contract, large = await self._read(exchange, runtime, None)
        # A share of their own: events come on the model's thread.
        room = _share(exchange).another().has_room
        events = runtime.stream(contract, large=large, room=room, **terms)
        del contract
        # The first event is awaited here, so that a refusal still has a status of its own.
        first = await while_connected(exchange.receive, anext(events))
        response = event_response(first, events, self._limits, self._memory)
        await response(exchange.scope, exchange.receive, exchange.send)

    async def _read(
        self, exchange: Exchange, runtime: ModelRuntime, operation: AnyOperation | None
    ) -> tuple[BaseRequest, bool]:
        """The contract in the body: of the operation, or where there is none of that which the body names.

        And whether it is so large that work on it would hold others up.
        """
        body = await read_body(exchange, self._limits, self._memory, _share(exchange))
        if operation is None:
            operations = runtime.operations
            operation = operations.only or operations.asked_for(await parsed(body, self._memory))
        size = len(body.content)
        return await self._read_contract(exchange, runtime, body, operation), size > OFFLOAD

    async def _read_contract(
        self, exchange: Exchange, runtime: ModelRuntime, body: Body, operation: AnyOperation
    ) -> BaseRequest:
        """The contract in a body, read where that holds nobody up. What its answer takes is held."""

        def read() -> BaseRequest:
            if body.scattered:
                body.measure(self._limits.max_depth)
                body.take()
            return self._checked(decode(body, operation.request, runtime.spec.name), exchange)

        slow = body.scattered or len(body.content) > SLOW
        contract = await self._memory.run(read, len(body.content), body.share) if slow else read()
        await self._settle(body)
        _expect(_share(exchange), runtime.answer_size(contract))
        return contract

    async def _settle(self, body: Body) -> None:
        """A body was read: what that took is given back, by the process too where it was much."""
        if body.weight.read > LARGE:
            await self._memory.run(give_back, 0, frees=True)
        body.settle()

    def _checked(self, contract: BaseRequest, exchange: Exchange) -> BaseRequest:
        contract = exchange.share_name(contract)
        if contract.__binary__:
            check_media(contract, self._limits)
        return contract

    def _attempt(self, item: Any, operations: Operations, model_name: str) -> BaseRequest | ProblemError:
        try:
            kind: type[BaseRequest] = operations.asked_for(item).request
            contract = decode_value(item, kind, model_name)
            check_media(contract, self._limits)
        except Exception as error:  # noqa: BLE001 - told as this item's answer; the others have theirs
            return as_problem(error)
        return contract

    def _call(self, exchange: Exchange, model_name: str, route: str) -> tuple[ModelRuntime, CallOptions]:
        """The model that is called, where the caller may, and the terms of the call."""
        caller = _caller(exchange)
        if not caller.may_call(model_name):
            # Before the model is looked up, so that a key does not tell which others there are.
            raise PermissionDeniedError("This key may not call that model.")
        tenant = caller.tenant
        # Without a key, requests share what their client's address may hold; names are no tuples.
        client = exchange.scope.get("client")
        exchange.share = Share(self._memory, tenant or (client and (client[0],)))
        runtime = self._runtime(exchange, model_name, route)
        timeout, priority = self._timeout(exchange), caller.priority(exchange.header(b"x-sheaf-priority"))
        return runtime, CallOptions(timeout=timeout, priority=priority, tenant=tenant, bill=caller.bill)

    def _runtime(self, exchange: Exchange, model_name: str, route: str) -> ModelRuntime:
        exchange.route = route
        try:
            runtime = self._models.get(model_name)
        except ModelNotFoundError as error:
            caller = _caller(exchange)
            names = [name for name in self._models.known() if caller.may_call(name)]
            if exchange.method != "POST" or not names:
                raise  # `/health` and `/ready` need no key, so they say nothing of what is there
            more = " and others" if len(names) > _MAX_NAMED else ""
            raise ModelNotFoundError(
                f"{error.detail} There are: {', '.join(names[:_MAX_NAMED])}{more}."
            ) from None
        exchange.model = runtime.spec.name
        return runtime

    def _timeout(self, exchange: Exchange) -> float | None:
        given = exchange.header(b"x-sheaf-timeout")
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


def _caller(exchange: Exchange) -> Caller:
    assert exchange.caller is not None  # noqa: S101 - the gate has let the request in
    return exchange.caller


def _share(exchange: Exchange) -> Share:
    assert exchange.share is not None  # noqa: S101 - every call has one
    return exchange.share


def _expect(share: Share, size: int) -> None:
    """Hold what answers will take that have so many bytes as JSON; raise where that is too much."""
    if size > FREE:
        share.expect(size)
