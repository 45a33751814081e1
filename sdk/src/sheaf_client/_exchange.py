"""One HTTP exchange without the waiting: what to send, and when to try again.

An exchange is a generator that yields `Send`, `Pause` and `HangUp` steps and returns the typed answer; into
it goes the response to each `Send`, or the translated error. `_http` drives the same exchanges synchronously
and asynchronously, so neither is written twice.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import httpx

from sheaf_client._bodies import acceptable_encodings
from sheaf_client._middleware import Send
from sheaf_client._msgpack import MSGPACK_TYPE, binary_size, pack
from sheaf_client._raw import RawResponse
from sheaf_client._reading import opened, read_many, read_models, read_response
from sheaf_client._refusals import EVENT_STREAM, JSON_TYPE, raise_for_problem
from sheaf_client._retry import RetryPolicy, is_unanswered
from sheaf_client._tracing import put_trace
from sheaf_client._transport import Call, CallOptions, ManyCall
from sheaf_client.contracts.base import BaseRequest, BaseResponse
from sheaf_client.contracts.models import ModelList
from sheaf_client.errors import BadResponseError, CallTimeoutError, ProblemError, SheafError

T = TypeVar("T")
ResponseT = TypeVar("ResponseT", bound=BaseResponse)
#: Bytes in the binary fields of a request from which on it is sent as MessagePack.
PACK_FROM = 64 * 1024
#: Seconds to wait for a connection; a server that is there accepts at once.
CONNECT_TIMEOUT = 10.0


@dataclass(frozen=True)
class Pause:
    """Wait so many seconds before the next step."""

    seconds: float


@dataclass(frozen=True)
class HangUp:
    """Close the connection of an answer that was read."""

    response: httpx.Response


Exchange: TypeAlias = Generator[Send | Pause | HangUp, httpx.Response | None, T]
Reader: TypeAlias = Callable[[httpx.Response], T]


def predict(call: Call[ResponseT]) -> Exchange[ResponseT]:
    """One request, one response."""
    return _predict(call, _reader(call))


def predict_raw(call: Call[ResponseT]) -> Exchange[RawResponse[ResponseT]]:
    """The same, with the response as HTTP has it."""
    return _predict(call, _unread(_reader(call)))


def predict_many(call: ManyCall[ResponseT]) -> Exchange[list[ResponseT | ProblemError]]:
    """Many requests for one model, each answered or refused by itself."""
    return _predict_many(call, _reader_of_many(call))


def predict_many_raw(call: ManyCall[ResponseT]) -> Exchange[RawResponse[list[ResponseT | ProblemError]]]:
    """The same, with the responses as HTTP has them."""
    return _predict_many(call, _unread(_reader_of_many(call)))


def _predict(call: Call[Any], read: Reader[T]) -> Exchange[T]:
    content, media = _encode(call.request, call.options)
    accept = _acceptable(call.operation.response, call.options)
    headers = _headers(call.options, str(call.request.request_id), accept, media)
    return _exchange("POST", call.path, headers, content, call.options, read)


def _predict_many(call: ManyCall[Any], read: Reader[T]) -> Exchange[T]:
    first = call.requests[0]
    content, media = _encode(call.requests, call.options)
    accept = _acceptable(call.operation.response, call.options)
    headers = _headers(call.options, str(first.request_id), accept, media)
    return _exchange("POST", f"/{first.model_name}/batch", headers, content, call.options, read)


def _reader(call: Call[ResponseT]) -> Reader[ResponseT]:
    kind, asked = call.operation.response, call.request.request_id
    return lambda response: read_response(response, kind, asked)


def _reader_of_many(call: ManyCall[ResponseT]) -> Reader[list[ResponseT | ProblemError]]:
    kind, asked = call.operation.response, [request.request_id for request in call.requests]
    return lambda response: read_many(response, kind, asked)


def _unread(read: Reader[T]) -> Reader[RawResponse[T]]:
    """A reader that leaves the reading of a success to the caller."""

    def keep(response: httpx.Response) -> RawResponse[T]:
        raise_for_problem(response)
        return RawResponse(response, read)

    return keep


def open_stream(call: Call[Any]) -> Exchange[httpx.Response]:
    """The response whose body is the stream of events; tried again only until it has begun."""
    content, media = _encode(call.request, call.options)
    headers = _headers(call.options, str(call.request.request_id), EVENT_STREAM, media)
    path = f"/{call.request.model_name}/stream"
    return _exchange("POST", path, headers, content, call.options, opened, stream=True)


def list_models(options: CallOptions) -> Exchange[ModelList]:
    """The models that the server holds."""
    return _exchange("GET", "/models", _headers(options, None, JSON_TYPE), None, options, read_models)


def _exchange(
    method: str,
    path: str,
    headers: dict[str, str],
    content: bytes | None,
    options: CallOptions,
    read: Reader[T],
    *,
    stream: bool = False,
) -> Exchange[T]:
    deadline = None if options.timeout is None else time.monotonic() + options.timeout
    policy = RetryPolicy(options.max_retries, deadline)
    attempt, repeated = 0, False
    while True:
        timeout = _stamp(headers, deadline)
        try:
            response = yield Send(method, path, dict(headers), content, timeout, stream, attempt + 1)
            assert response is not None  # noqa: S101 - a `Send` is always answered or thrown at
            try:
                return read(response)
            except BadResponseError:
                # Another call's answer may be left on the connection too, and would be the next call's.
                yield HangUp(response)
                raise
        except SheafError as error:
            delay = policy.delay(error, attempt, time.monotonic(), repeated=repeated)
            if delay is None:
                raise
            repeated = repeated or is_unanswered(error)
        yield Pause(delay)
        attempt += 1


def _stamp(headers: dict[str, str], deadline: float | None) -> httpx.Timeout:
    """Tell the server what is left of the time, and return it as the limit of this try."""
    if deadline is None:
        return httpx.Timeout(None, connect=CONNECT_TIMEOUT)
    left = deadline - time.monotonic()
    if left <= 0:
        raise CallTimeoutError("The time for this call is over.")
    headers["x-sheaf-timeout"] = f"{math.ceil(left * 1000) / 1000:g}"
    # The server answers a passed deadline itself; a little longer lets that answer arrive.
    return httpx.Timeout(left + 0.5, connect=min(CONNECT_TIMEOUT, left))


def _headers(
    options: CallOptions, request_id: str | None, accept: str, media: str = JSON_TYPE
) -> dict[str, str]:
    headers = {"accept": accept, "accept-encoding": acceptable_encodings(), **options.headers}
    if request_id is not None:
        # The same on every try, so that a server can tell a repetition.
        headers |= {"content-type": media, "x-request-id": request_id, "idempotency-key": request_id}
    put_trace(headers)
    return headers


def _encode(request: BaseRequest | Sequence[BaseRequest], options: CallOptions) -> tuple[bytes, str]:
    """The body and its content type: MessagePack where raw bytes save more than they cost."""
    requests = [request] if isinstance(request, BaseRequest) else request
    size = sum(binary_size(item) for item in requests)
    packed = options.binary == "always" or (options.binary == "auto" and size > PACK_FROM)
    if isinstance(request, BaseRequest):
        content = pack(request, exclude_none=_nulls_mean_absence(request)) if packed else _json(request)
    elif packed:
        content = pack(list(request), key="requests", exclude_none=all(map(_nulls_mean_absence, requests)))
    else:
        content = b'{"requests":[' + b",".join(map(_json, request)) + b"]}"
    return content, MSGPACK_TYPE if packed else JSON_TYPE


def _json(request: BaseRequest) -> bytes:
    return request.model_dump_json(exclude_none=_nulls_mean_absence(request)).encode()


def _nulls_mean_absence(request: BaseRequest) -> bool:
    """Whether its nulls may be left out: where a field has another default, null says something else."""
    fields = type(request).model_fields.items()
    return all(field.default is None or getattr(request, name) is not None for name, field in fields)


def _acceptable(kind: type[BaseResponse], options: CallOptions) -> str:
    """What answers may be encoded as; raw bytes only where the contract has any."""
    packed = options.binary == "always" or (options.binary == "auto" and kind.__binary__)
    return f"{MSGPACK_TYPE}, {JSON_TYPE};q=0.9" if packed else JSON_TYPE
