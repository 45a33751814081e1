"""A stream's events as Server-Sent Events, in their order on the wire."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from functools import partial

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.responses import Response

from sheaf.engine.streams import Event
from sheaf.http.bodies import offload
from sheaf.http.limits import Limits
from sheaf.http.memory import Memory
from sheaf.http.problems import as_problem
from sheaf.http.writing import encode_document, size_of
from sheaf_client.contracts.events import ErrorEvent
from sheaf_client.protocol import Model, ResultEvent

#: What ends a line to `str.splitlines`, and neither in JSON nor in Server-Sent Events; JSON escapes the rest.
_LINE_ENDS = {end: f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}


def event_response(
    first: Event, rest: AsyncGenerator[Event, None], limits: Limits, memory: Memory
) -> Response:
    """The events as a response; a client that takes none of them for too long ends the stream."""
    return EventSourceResponse(
        _server_sent(first, rest, memory),
        ping=limits.keep_alive,
        send_timeout=limits.write_timeout,
        headers={"cache-control": "no-store"},
    )


async def _server_sent(
    first: Event, rest: AsyncGenerator[Event, None], memory: Memory
) -> AsyncIterator[bytes]:
    """The events, each with its number; an error is the last event."""
    number = 0
    try:
        yield await _event(first, number, memory)
        async for event in rest:
            number += 1
            yield await _event(event, number, memory)
    except Exception as error:  # noqa: BLE001 - the status is long sent; the stream itself must say it
        problem = as_problem(error).to_problem()
        told = ErrorEvent(problem=problem, error=problem.detail or problem.title)
        text = _in_one_line(told.model_dump_json(exclude_none=True))
        yield ServerSentEvent(text, event="error", id=str(number + 1)).encode()
    finally:
        await rest.aclose()


async def _event(event: Event, number: int, memory: Memory) -> bytes:
    told = event.response if isinstance(event, ResultEvent) else event
    # Others are served while tensors, files and many numbers become text.
    return await offload(size_of(told), partial(_written, event, number), memory)


def _written(event: Event, number: int) -> bytes:
    if isinstance(event, ResultEvent):
        data = '{"type":"result","done":true,' + _line(event.response)[1:]
    else:
        data = _line(event)
    return ServerSentEvent(data, event=event.type, id=str(number)).encode()


def _line(told: Model) -> str:
    return _in_one_line(encode_document(told, packed=False).decode())


def _in_one_line(text: str) -> str:
    """The JSON of an event, one line also to clients that split a stream as they split any text."""
    if not text.isascii():
        for end, escape in _LINE_ENDS.items():
            text = text.replace(end, escape)
    return text
