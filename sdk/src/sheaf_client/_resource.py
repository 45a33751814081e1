"""The base of the generated resources: builds the contract from keywords and hands it to the transport."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, TypeVar

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


def prepare(
    caller: Caller | AsyncCaller,
    operation: Operation[Any, ResponseT, ProgressT_co],
    request: object,
    fields: dict[str, Any],
) -> Call[ResponseT, ProgressT_co]:
    """The call for a request, or for an object that stands for some fields, or for fields alone.

    Raises:
        ArgumentError: The request is of another operation, or there are fields beside it, or fields twice.
        InvalidRequestError: The fields break the contract.
    """
    options = caller.options(fields.pop("timeout", None), fields.pop("extra_headers", None))
    if isinstance(request, BaseRequest):
        if not isinstance(request, operation.request):
            raise ArgumentError(f"this takes a {operation.request.__name__}, not a {type(request).__name__}")
        if fields:
            raise ArgumentError(f"give a request or keywords, not both: {', '.join(sorted(fields))}")
        return Call(operation, _completed(operation, request, caller.adapters), options)
    model = fields.pop("model", None) or caller.model
    if request is not None:
        expanded = _expanded(operation, request, fields)
        if both := (expanded.keys() & fields.keys()) - REPLACEABLE:
            raise ArgumentError(f"{type(request).__name__} gives {', '.join(sorted(both))}; give them once")
        fields = {**expanded, **fields}
    fields |= caller.adapters.fields(operation, fields)
    return Call(operation, build_request(operation, model, fields), options)


def prepare_many(
    caller: Caller | AsyncCaller,
    operation: Operation[Any, ResponseT],
    requests: Sequence[BaseRequest],
    timeout: float | None,
    headers: Mapping[str, str] | None,
) -> ManyCall[ResponseT]:
    """The call for many requests, which are all of this operation and for one model."""
    _check_many(operation, requests)
    completed = [_completed(operation, request, caller.adapters) for request in requests]
    return ManyCall(operation, completed, caller.options(timeout, headers))


def _expanded(operation: Operation[Any, Any], stands: object, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that an object stands for, but for those that are given in their place."""
    try:
        return dict(expand(operation.request, stands, fields.keys() & REPLACEABLE))
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


class TimeLimit:
    """A context in which an error of a passed time limit is raised as one that says what the limit was."""

    __slots__ = ("_options",)

    def __init__(self, options: CallOptions) -> None:
        self._options = options

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, CallTimeoutError | DeadlineExceededError):
            raise _with_limit(error, self._options) from error


def _with_limits(
    answers: list[ResponseT | ProblemError], options: CallOptions
) -> list[ResponseT | ProblemError]:
    return [
        _with_limit(answer, options) if isinstance(answer, DeadlineExceededError) else answer
        for answer in answers
    ]


class SyncResource:
    """Operations of one model type, waiting for each answer."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def _call(
        self, operation: Operation[Any, ResponseT], request: object, fields: dict[str, Any]
    ) -> ResponseT:
        call = prepare(self._caller, operation, request, fields)
        with TimeLimit(call.options):
            return self._caller.transport.call(call)

    def _call_many(
        self,
        operation: Operation[Any, ResponseT],
        requests: Sequence[BaseRequest],
        timeout: float | None,
        headers: Mapping[str, str] | None,
    ) -> list[ResponseT | ProblemError]:
        call = prepare_many(self._caller, operation, requests, timeout, headers)
        with TimeLimit(call.options):
            return _with_limits(self._caller.transport.call_many(call), call.options)

    def _stream(
        self, operation: Operation[Any, ResponseT, ProgressT_co], request: object, fields: dict[str, Any]
    ) -> Stream[ResponseT, ProgressT_co]:
        call = prepare(self._caller, operation, request, fields)
        return Stream(lambda: self._caller.transport.stream(call))


class AsyncResource:
    """Operations of one model type, awaited."""

    def __init__(self, caller: AsyncCaller) -> None:
        self._caller = caller

    async def _call(
        self, operation: Operation[Any, ResponseT], request: object, fields: dict[str, Any]
    ) -> ResponseT:
        call = prepare(self._caller, operation, request, fields)
        with TimeLimit(call.options):
            return await self._caller.transport.call(call)

    async def _call_many(
        self,
        operation: Operation[Any, ResponseT],
        requests: Sequence[BaseRequest],
        timeout: float | None,
        headers: Mapping[str, str] | None,
    ) -> list[ResponseT | ProblemError]:
        call = prepare_many(self._caller, operation, requests, timeout, headers)
        with TimeLimit(call.options):
            return _with_limits(await self._caller.transport.call_many(call), call.options)

    def _stream(
        self, operation: Operation[Any, ResponseT, ProgressT_co], request: object, fields: dict[str, Any]
    ) -> AsyncStream[ResponseT, ProgressT_co]:
        call = prepare(self._caller, operation, request, fields)
        return AsyncStream(lambda: self._caller.transport.stream(call))
