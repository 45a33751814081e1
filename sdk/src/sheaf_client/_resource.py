"""The base of the generated resources: builds the contract from keywords and hands it to the transport."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar, cast

from pydantic import ValidationError

from sheaf_client._adapters import Adapters
from sheaf_client._errors import ArgumentError, CallTimeoutError, ProblemError, SheafError
from sheaf_client._faults import invalid_request
from sheaf_client._inputs import REPLACEABLE, as_body, expand, missing_as_none
from sheaf_client._operation import Operation, ProgressT_co
from sheaf_client._streaming import AsyncStream, Stream
from sheaf_client._strict import validate_strictly
from sheaf_client._transport import AsyncTransport, Call, CallOptions, ManyCall, Transport
from sheaf_client.contracts.base import BaseRequest, BaseResponse
from sheaf_client.errors import DeadlineExceededError

RequestT = TypeVar("RequestT", bound=BaseRequest)
ResponseT = TypeVar("ResponseT", bound=BaseResponse)
LateT = TypeVar("LateT", bound=CallTimeoutError | DeadlineExceededError)


class _AnyCaller(Protocol):
    """What a resource needs of its client, whether it waits or awaits."""

    @property
    def model(self) -> str | None: ...

    @property
    def adapters(self) -> Adapters: ...

    def options(
        self, timeout: float | None = None, headers: Mapping[str, str] | None = None
    ) -> CallOptions: ...


class Caller(_AnyCaller, Protocol):
    """The client of a resource."""

    transport: Transport


class AsyncCaller(_AnyCaller, Protocol):
    """The client of an asynchronous resource."""

    transport: AsyncTransport


def build_request(operation: Operation[RequestT, Any], model: str | None, fields: dict[str, Any]) -> RequestT:
    """The contract for keywords as people hold them; raises `InvalidRequestError` with each fault."""
    if model is not None:
        fields["model_name"] = model
    body = as_body(operation.request, fields)
    try:
        return validate_strictly(operation.request, body)
    except ValidationError as error:
        kinds = {item["type"] for item in error.errors(include_url=False, include_input=False)}
        if "finite_number" not in kinds:
            raise invalid_request(error, body) from None
    body = {
        n: v if isinstance(v, bytes) or hasattr(v, "dtype") else missing_as_none(v) for n, v in body.items()
    }
    try:
        return validate_strictly(operation.request, body)
    except ValidationError as error:
        raise invalid_request(error, body) from None


def _prepare(
    caller: Caller | AsyncCaller,
    operation: Operation[Any, ResponseT, ProgressT_co],
    whole: object,
    given: dict[str, Any],
) -> Call[ResponseT, ProgressT_co]:
    options = caller.options(given.pop("timeout", None), given.pop("extra_headers", None))
    if isinstance(whole, BaseRequest):
        if not isinstance(whole, operation.request):
            raise ArgumentError(f"this takes a {operation.request.__name__}, not a {type(whole).__name__}")
        if given:
            raise ArgumentError(f"give a request or keywords, not both: {', '.join(sorted(given))}")
        return Call(operation, _completed(operation, whole, caller.adapters), options)
    model = given.pop("model", None) or caller.model
    if whole is not None:
        fields = _expanded(operation, whole, given)
        if both := (fields.keys() & given.keys()) - REPLACEABLE:
            raise ArgumentError(f"{type(whole).__name__} gives {', '.join(sorted(both))}; give them once")
        given = {**fields, **given}
    given |= caller.adapters.fields(operation, given)
    return Call(operation, build_request(operation, model, given), options)


def _expanded(operation: Operation[Any, Any], whole: object, given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that an object stands for, but for those that are given in their place."""
    try:
        return dict(expand(operation.request, whole, given.keys() & REPLACEABLE))
    except SheafError:
        raise
    except (TypeError, ValueError) as error:
        raise ArgumentError(str(error)) from error


def _completed(operation: Operation[Any, Any], request: BaseRequest, adapters: Adapters) -> BaseRequest:
    """The request with the client's adapters, where it names none; the one given stays as it is."""
    fields = adapters.fields(operation, request.model_fields_set)
    if not fields:
        return request
    held = {name: getattr(request, name) for name in (*request.model_fields_set, "request_id")}
    try:
        return validate_strictly(type(request), held | fields)
    except ValidationError as error:
        raise invalid_request(error, held | fields) from None


def _check_many(operation: Operation[Any, Any], requests: Sequence[BaseRequest]) -> None:
    if not requests:
        raise ArgumentError("give at least one request")
    for index, request in enumerate(requests):
        if not isinstance(request, operation.request):
            wanted, given = operation.request.__name__, type(request).__name__
            raise ArgumentError(f"this takes a list of {wanted}, and its item {index} is a {given}")
    if len({request.model_name for request in requests}) > 1:
        raise ArgumentError("all requests of one call must name the same model")


def _with_limit(error: LateT, options: CallOptions) -> LateT:
    """An error of the same kind that says how long the call had, and what changes it."""
    if options.timeout is None:
        return error
    told = f"The call had {round(options.timeout, 3):g} s; `timeout=` gives it another limit."
    kind: Any = type(error)
    own: dict[str, Any] = {}
    if isinstance(error, ProblemError):
        told = f"{error.detail} {told}"
        own = {"errors": error.errors, "request_id": error.request_id, "retry_after": error.retry_after}
    else:
        told = f"{error} {told}"
    made: LateT = kind(told, **own)
    return made


def _with_limits(
    answers: list[ResponseT | ProblemError], options: CallOptions
) -> list[ResponseT | ProblemError]:
    """The answers, those whose time ran out as above; an answer as it came over the wire stays as it is."""
    if not isinstance(answers, list):  # pyright: ignore[reportUnnecessaryIsInstance] - of `with_raw_response`
        return answers
    return [
        _with_limit(answer, options) if isinstance(answer, DeadlineExceededError) else answer
        for answer in answers
    ]


class SyncResource:
    """Operations of one model type, waiting for each answer."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def _call(self, operation: Operation[Any, ResponseT], whole: object, given: dict[str, Any]) -> ResponseT:
        call = _prepare(self._caller, operation, whole, given)
        try:
            return self._caller.transport.call(call)
        except (CallTimeoutError, DeadlineExceededError) as error:
            raise _with_limit(error, call.options) from error

    def _call_many(
        self,
        operation: Operation[Any, ResponseT],
        requests: Sequence[BaseRequest],
        timeout: float | None,
        headers: Mapping[str, str] | None,
    ) -> list[ResponseT | ProblemError]:
        _check_many(operation, requests)
        completed = [_completed(operation, request, self._caller.adapters) for request in requests]
        call = ManyCall(operation, completed, self._caller.options(timeout, headers))
        try:
            answers = self._caller.transport.call_many(call)
        except (CallTimeoutError, DeadlineExceededError) as error:
            raise _with_limit(error, call.options) from error
        return _with_limits(answers, call.options)

    def _stream(
        self, operation: Operation[Any, ResponseT, ProgressT_co], whole: object, given: dict[str, Any]
    ) -> Stream[ResponseT, ProgressT_co]:
        call = _prepare(self._caller, operation, whole, given)
        if call.options.raw:
            call = replace(call, options=replace(call.options, raw=False))
            return cast(
                "Stream[ResponseT, ProgressT_co]", cast("Any", self._caller.transport).raw_stream(call)
            )
        return Stream(lambda: self._caller.transport.stream(call))


class AsyncResource:
    """Operations of one model type, awaited."""

    def __init__(self, caller: AsyncCaller) -> None:
        self._caller = caller

    async def _call(
        self, operation: Operation[Any, ResponseT], whole: object, given: dict[str, Any]
    ) -> ResponseT:
        call = _prepare(self._caller, operation, whole, given)
        try:
            return await self._caller.transport.call(call)
        except (CallTimeoutError, DeadlineExceededError) as error:
            raise _with_limit(error, call.options) from error

    async def _call_many(
        self,
        operation: Operation[Any, ResponseT],
        requests: Sequence[BaseRequest],
        timeout: float | None,
        headers: Mapping[str, str] | None,
    ) -> list[ResponseT | ProblemError]:
        _check_many(operation, requests)
        completed = [_completed(operation, request, self._caller.adapters) for request in requests]
        call = ManyCall(operation, completed, self._caller.options(timeout, headers))
        try:
            answers = await self._caller.transport.call_many(call)
        except (CallTimeoutError, DeadlineExceededError) as error:
            raise _with_limit(error, call.options) from error
        return _with_limits(answers, call.options)

    def _stream(
        self, operation: Operation[Any, ResponseT, ProgressT_co], whole: object, given: dict[str, Any]
    ) -> AsyncStream[ResponseT, ProgressT_co]:
        call = _prepare(self._caller, operation, whole, given)
        if call.options.raw:
            call = replace(call, options=replace(call.options, raw=False))
            return cast(
                "AsyncStream[ResponseT, ProgressT_co]", cast("Any", self._caller.transport).raw_stream(call)
            )
        return AsyncStream(lambda: self._caller.transport.stream(call))
