"""How an answer is read: one response, many, the events of a stream, the list of models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar
from uuid import UUID

import httpx
import pydantic_core
from pydantic import ValidationError

from sheaf_client import _sse
from sheaf_client._bodies import too_large
from sheaf_client._msgpack import MSGPACK_TYPE, unpack, validate_unpacked
from sheaf_client._operation import Operation, ProgressT_co
from sheaf_client._refusals import is_stream, media_of, named, raise_for_problem
from sheaf_client._streaming import Event, ResultEvent, UnknownEvent
from sheaf_client._transport import Call
from sheaf_client.contracts.base import BaseResponse
from sheaf_client.contracts.events import ErrorEvent
from sheaf_client.contracts.models import ModelList
from sheaf_client.contracts.problem import Problem
from sheaf_client.errors import BadResponseError, InternalServerError, ProblemError

ResponseT = TypeVar("ResponseT", bound=BaseResponse)


def _is_packed(response: httpx.Response) -> bool:
    return media_of(response) == MSGPACK_TYPE


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


def read_response(response: httpx.Response, kind: type[ResponseT], asked: UUID) -> ResponseT:
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


def read_many(
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


def read_models(response: httpx.Response) -> ModelList:
    raise_for_problem(response)
    try:
        return ModelList.model_validate_json(response.content)
    except ValidationError as error:
        raise BadResponseError(f"The answer is no list of models{named(response)}.") from error


def opened(response: httpx.Response) -> httpx.Response:
    raise_for_problem(response)
    if not is_stream(response):
        raise BadResponseError(f"The answer is no stream of events{named(response)}.")
    return response
