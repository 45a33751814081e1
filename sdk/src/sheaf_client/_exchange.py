"""One HTTP exchange without the waiting: what to send, when to try again, how to read the answer.

An exchange is a generator that yields `Send`, `Pause` and `HangUp` steps and returns the typed answer; into
it goes the response to each `Send`, or the translated error. `_http` drives the same exchanges synchronously
and asynchronously, so neither is written twice.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar
from uuid import UUID

import httpx
import pydantic_core
from pydantic import ValidationError

from sheaf_client import _sse
from sheaf_client._bodies import acceptable_encodings, too_large
from sheaf_client._middleware import Line, Send
from sheaf_client._msgpack import MSGPACK_TYPE, binary_size, pack, unpack, validate_unpacked
from sheaf_client._operation import Operation, ProgressT_co
from sheaf_client._raw import RawResponse
from sheaf_client._refusals import EVENT_STREAM, JSON_TYPE, is_stream, media_of, named, raise_for_problem
from sheaf_client._retry import RetryPolicy, is_unanswered
from sheaf_client._streaming import Event, ResultEvent, UnknownEvent
from sheaf_client._tracing import put_trace
from sheaf_client._transport import Call, CallOptions, ManyCall
from sheaf_client.contracts.base import BaseRequest, BaseResponse
from sheaf_client.contracts.events import ErrorEvent
from sheaf_client.contracts.models import ModelList
from sheaf_client.contracts.problem import Problem
from sheaf_client.errors import (
    ArgumentError,
    BadResponseError,
    CallTimeoutError,
    ConnectionFailedError,
    InternalServerError,
    ProblemError,
    SheafError,
)

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
    return lambda response: _read_response(response, kind, asked)


def _reader_of_many(call: ManyCall[ResponseT]) -> Reader[list[ResponseT | ProblemError]]:
    kind, asked = call.operation.response, [request.request_id for request in call.requests]
    return lambda response: _read_many(response, kind, asked)


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
    return _exchange("POST", path, headers, content, call.options, _opened, stream=True)


def list_models(options: CallOptions) -> Exchange[ModelList]:
    """The models that the server holds."""
    return _exchange("GET", "/models", _headers(options, None, JSON_TYPE), None, options, _read_models)


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


def _is_packed(response: httpx.Response) -> bool:
    return media_of(response) == MSGPACK_TYPE


@contextmanager
def translated(server: str, line: Line | None = None) -> Generator[None, None, None]:
    """Turn httpx's errors into this library's; `line` is that of a try whose answer has not begun yet."""
    try:
        yield
    except httpx.ConnectTimeout as error:
        raise ConnectionFailedError(
            f"{server} did not accept the connection in time.", unsent=True
        ) from error
    except httpx.TimeoutException as error:
        raise CallTimeoutError("The time for this call is over.") from error
    except httpx.ConnectError as error:
        raise ConnectionFailedError(_not_connected(server, error), unsent=True) from error
    except (httpx.LocalProtocolError, httpx.InvalidURL, UnicodeEncodeError):
        # What they say may hold the value of a header, so they are no cause either.
        raise ArgumentError(
            "Middleware or the httpx client gave a path or a header that HTTP cannot carry."
        ) from None
    except httpx.TransportError as error:
        if isinstance(error.__context__, httpx.InvalidURL):
            raise BadResponseError(
                f"A redirect is no answer to a call, and it leads to nowhere: {error}"
            ) from error
        if _is_no_http(error):
            raise BadResponseError(f"{server} does not answer by HTTP: {error}.") from error
        unanswered = line is not None and line.response is None and _closed(error)
        raise ConnectionFailedError(f"The connection broke: {error}", unanswered=unanswered) from error
    except httpx.RequestError as error:  # an encoding that is broken, redirects without end
        raise BadResponseError(f"The answer cannot be read: {error}") from error
    except RuntimeError as error:
        if str(error) != "Event loop is closed":
            raise
        unanswered = line is not None and line.response is None
        text = "The connection is of an event loop that is closed; give each loop an httpx client of its own."
        raise ConnectionFailedError(text, unanswered=unanswered) from error


def _not_connected(server: str, error: httpx.ConnectError) -> str:
    text = f"No server can be reached at {server}: {error}."
    if "SSL" in str(error):
        return text
    return f"{text} `sheaf serve` starts one; `base_url` or SHEAF_BASE_URL says where it is."


def _closed(error: httpx.TransportError) -> bool:
    """Whether the connection was closed or reset, rather than used for something that is not HTTP."""
    # httpx raises the same class where an answer breaks the protocol; only the text, the same in its code for
    # HTTP/1.1 and HTTP/2, tells the end of a connection.
    return isinstance(error, (httpx.ReadError, httpx.WriteError)) or (
        isinstance(error, httpx.RemoteProtocolError) and str(error).startswith("Server disconnected")
    )


def _is_no_http(error: httpx.TransportError) -> bool:
    """Whether something came that breaks HTTP/1.1, rather than nothing more."""
    # httpx's error is of httpcore's, which holds the parser's.
    held = getattr(error.__cause__, "args", ())
    parsed = any(type(one).__module__.startswith("h11.") for one in held)
    return parsed and not str(error).startswith("peer closed")


class EventReader(Generic[ResponseT, ProgressT_co]):
    """Turns the chunks of a stream into typed events and knows when the last one has come."""

    def __init__(self, call: Call[ResponseT, ProgressT_co]) -> None:
        self._operation, self._asked = call.operation, call.request.request_id
        self._limit = call.options.max_answer_bytes
        self._parser = _sse.Parser(self._limit)
        self.done = False

    def feed(self, chunk: bytes) -> Iterator[Event[ResponseT, ProgressT_co]]:
        """The events that this chunk completes; an `error` event is raised."""
        try:
            for event in self._parser.feed(chunk):
                typed = _read_event(event, self._operation, self._asked)
                self.done = isinstance(typed, ResultEvent)
                yield typed
                if self.done:
                    return
        except _sse.EventTooLargeError:
            raise BadResponseError(too_large(self._limit or 0, "An event of the stream")) from None

    def finish(self) -> None:
        """Say that the stream is over; raises where no result has come."""
        if not self.done:
            raise BadResponseError("The stream ended without a result.")


def _read_event(
    event: _sse.ServerSentEvent, operation: Operation[Any, ResponseT, ProgressT_co], asked: UUID
) -> Event[ResponseT, ProgressT_co]:
    kind: Any = event.event
    try:
        data: Any = pydantic_core.from_json(event.data)
        # Not every server writes an `event:` line; the data says it too.
        kind = data.get("type", kind)
        if not isinstance(kind, str):
            raise TypeError("the kind of an event is text")
        if kind == "progress":
            return operation.progress.model_validate(data)
        if kind == "result":
            return ResultEvent(_answer_to(asked, operation.response.model_validate(data)))
        if kind == "error":
            raise _failure(data, asked)
    except (ValueError, TypeError, AttributeError) as error:
        raise BadResponseError(f"The stream holds a broken {kind!r} event.") from error
    return UnknownEvent(kind, data)


def _failure(data: Mapping[str, Any], asked: UUID) -> ProblemError:
    """The error that an event tells, by a problem document or by a text alone."""
    told = data.get("error")
    if "problem" not in data and isinstance(told, str):
        return InternalServerError(told, request_id=str(asked))
    return ProblemError.from_problem(ErrorEvent.model_validate(data).problem)


def _answer_to(asked: UUID, answer: ResponseT) -> ResponseT:
    """The answer, where it is to the request that was sent: a broken connection may bring another's."""
    if answer.request_id != asked:
        raise BadResponseError(f"The answer is to request {answer.request_id}, and {asked} was sent.")
    return answer


def _read_response(response: httpx.Response, kind: type[ResponseT], asked: UUID) -> ResponseT:
    raise_for_problem(response)
    try:
        if _is_packed(response):
            answer = validate_unpacked(kind, unpack(response.content), strict=False)
        else:
            answer = kind.model_validate_json(response.content)
    except ValidationError as error:
        raise BadResponseError(
            f"The answer is no {kind.__name__}{named(response)}: {error.error_count()} faults."
        ) from error
    except ValueError as error:
        raise BadResponseError(f"The answer is no {kind.__name__}{named(response)}.") from error
    return _answer_to(asked, answer)


def _read_many(
    response: httpx.Response, kind: type[ResponseT], asked: Sequence[UUID]
) -> list[ResponseT | ProblemError]:
    raise_for_problem(response)
    packed = _is_packed(response)

    def read(item: Any, asked: UUID) -> ResponseT | ProblemError:
        if "model_type" in item:
            answer = validate_unpacked(kind, item, strict=False) if packed else kind.model_validate(item)
            return _answer_to(asked, answer)
        problem = ProblemError.from_problem(Problem.model_validate(item))
        if problem.request_id not in (None, str(asked)):
            raise BadResponseError(f"The refusal is of request {problem.request_id}, and {asked} was sent.")
        return problem

    try:
        body = unpack(response.content) if packed else pydantic_core.from_json(response.content)
        items = list(body["responses"])
        if len(items) == len(asked):
            return list(map(read, items, asked))
    except (ValueError, KeyError, TypeError) as error:
        raise BadResponseError(f"The answer is no batch of responses{named(response)}.") from error
    raise BadResponseError(f"The answer holds {len(items)} responses to {len(asked)} requests.")


def _read_models(response: httpx.Response) -> ModelList:
    raise_for_problem(response)
    try:
        return ModelList.model_validate_json(response.content)
    except ValidationError as error:
        raise BadResponseError(f"The answer is no list of models{named(response)}.") from error


def _opened(response: httpx.Response) -> httpx.Response:
    raise_for_problem(response)
    if not is_stream(response):
        raise BadResponseError(f"The answer is no stream of events{named(response)}.")
    return response
