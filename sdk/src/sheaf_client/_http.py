"""Calls over HTTP with httpx: two thin drivers of the same exchanges, one that waits and one that awaits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import lru_cache, partial
from typing import Any, ClassVar, TypeVar

import httpx

from sheaf_client import _exchange as ex
from sheaf_client._arguments import without_secrets
from sheaf_client._bodies import bound_body, in_time
from sheaf_client._connections import AsyncConnections, Connections, Mark
from sheaf_client._deadlines import until, watched
from sheaf_client._errors import ProblemError, SheafError
from sheaf_client._middleware import Send, logged, through, through_async
from sheaf_client._operation import ProgressT_co
from sheaf_client._raw import AsyncRawStream, RawResponse, RawStream
from sheaf_client._reading import EventReader
from sheaf_client._refusals import is_stream
from sheaf_client._streaming import Event
from sheaf_client._transport import Call, CallOptions, ManyCall
from sheaf_client._transport_errors import translated
from sheaf_client.contracts.base import BaseResponse
from sheaf_client.contracts.models import ModelList

T = TypeVar("T")
ResponseT = TypeVar("ResponseT", bound=BaseResponse)


class HTTPTransport:
    """Calls over a synchronous httpx client, which it closes only if it has `make` to make others."""

    over_http: ClassVar[bool] = True

    def __init__(
        self, client: httpx.Client, *, make: Callable[[], httpx.Client] | None, base_url: str
    ) -> None:
        self._connections = Connections(client, make)
        self._base_url = base_url.rstrip("/")
        self._shown = without_secrets(self._base_url)

    def call(self, call: Call[ResponseT]) -> ResponseT:
        return self._drive(ex.predict(call), call.options)

    def call_many(self, call: ManyCall[ResponseT]) -> list[ResponseT | ProblemError]:
        return self._drive(ex.predict_many(call), call.options)

    def raw_call(self, call: Call[ResponseT]) -> RawResponse[ResponseT]:
        return self._drive(ex.predict_raw(call), call.options)

    def raw_call_many(self, call: ManyCall[ResponseT]) -> RawResponse[list[ResponseT | ProblemError]]:
        return self._drive(ex.predict_many_raw(call), call.options)

    def models(self, options: CallOptions) -> ModelList:
        return self._drive(ex.list_models(options), options)

    def stream(self, call: Call[ResponseT, ProgressT_co]) -> Iterator[Event[ResponseT, ProgressT_co]]:
        return self._events(call, lambda: self._open(call))

    def raw_stream(self, call: Call[ResponseT, ProgressT_co]) -> RawStream[ResponseT, ProgressT_co]:
        return RawStream(lambda: self._open(call), lambda response: self._events(call, lambda: response))

    def _open(self, call: Call[Any]) -> httpx.Response:
        return self._drive(ex.open_stream(call), call.options)

    def _events(
        self, call: Call[ResponseT, ProgressT_co], open_response: Callable[[], httpx.Response]
    ) -> Iterator[Event[ResponseT, ProgressT_co]]:
        response, mark = open_response(), Mark()
        try:
            reader = EventReader(call)
            with translated(self._shown):
                for chunk in response.iter_bytes():
                    for event in reader.feed(chunk):
                        yield event
                        mark.check()
                    if reader.done:
                        return
            reader.finish()
        finally:
            if not mark.foreign:  # else the other process reads on
                response.close()

    def _drive(self, exchange: ex.Exchange[T], options: CallOptions) -> T:
        try:
            step = next(exchange)
            while True:
                try:
                    answer = self._take(step, options)
                except SheafError as error:
                    step = exchange.throw(error)
                else:
                    step = exchange.send(answer)
        except StopIteration as stop:
            result: T = stop.value
            return result

    def _take(self, step: Send | ex.Pause | ex.HangUp, options: CallOptions) -> httpx.Response | None:
        if isinstance(step, ex.Pause):
            time.sleep(step.seconds)
            return None
        if isinstance(step, ex.HangUp):
            if connection := _alone(step.response):
                connection.close()
            return None
        client = self._connections.current()
        return through(options.middleware, partial(self._send, client, options.max_answer_bytes))(step)

    def _send(self, client: httpx.Client, limit: int | None, step: Send) -> httpx.Response:
        ends = _ends(step)
        with logged(step) as line, translated(self._shown, line):
            url = _parsed(self._base_url + step.path)
            request = client.build_request(
                step.method, url, headers=step.headers, content=step.content, timeout=step.timeout
            )
            # The head by itself, so that an answer that breaks off is told from one that never began.
            with until(ends):
                line.response = response = client.send(watched(request), stream=True, follow_redirects=False)
            stream = step.stream and is_stream(response)
            try:
                bound_body(response, limit, ends, stream=stream)
                if not stream:
                    response.read()
            except BaseException:
                response.close()
                raise
            return response

    def close(self) -> None:
        self._connections.close()


class AsyncHTTPTransport:
    """Calls over an asynchronous httpx client, which it closes only if it has `make` to make others."""

    over_http: ClassVar[bool] = True

    def __init__(
        self, client: httpx.AsyncClient, *, make: Callable[[], httpx.AsyncClient] | None, base_url: str
    ) -> None:
        self._connections = AsyncConnections(client, make)
        self._base_url = base_url.rstrip("/")
        self._shown = without_secrets(self._base_url)

    async def call(self, call: Call[ResponseT]) -> ResponseT:
        return await self._drive(ex.predict(call), call.options)

    async def call_many(self, call: ManyCall[ResponseT]) -> list[ResponseT | ProblemError]:
        return await self._drive(ex.predict_many(call), call.options)

    async def raw_call(self, call: Call[ResponseT]) -> RawResponse[ResponseT]:
        return await self._drive(ex.predict_raw(call), call.options)

    async def raw_call_many(self, call: ManyCall[ResponseT]) -> RawResponse[list[ResponseT | ProblemError]]:
        return await self._drive(ex.predict_many_raw(call), call.options)

    async def models(self, options: CallOptions) -> ModelList:
        return await self._drive(ex.list_models(options), options)

    def stream(self, call: Call[ResponseT, ProgressT_co]) -> AsyncIterator[Event[ResponseT, ProgressT_co]]:
        return self._events(call, lambda: self._open(call))

    def raw_stream(self, call: Call[ResponseT, ProgressT_co]) -> AsyncRawStream[ResponseT, ProgressT_co]:
        return AsyncRawStream(
            lambda: self._open(call), lambda response: self._events(call, lambda: _ready(response))
        )

    async def _open(self, call: Call[Any]) -> httpx.Response:
        return await self._drive(ex.open_stream(call), call.options)

    async def _events(
        self, call: Call[ResponseT, ProgressT_co], open_response: Callable[[], Awaitable[httpx.Response]]
    ) -> AsyncIterator[Event[ResponseT, ProgressT_co]]:
        response = await open_response()
        try:
            reader = EventReader(call)
            with translated(self._shown):
                async for chunk in response.aiter_bytes():
                    for event in reader.feed(chunk):
                        yield event
                    if reader.done:
                        return
            reader.finish()
        finally:
            await response.aclose()

    async def _drive(self, exchange: ex.Exchange[T], options: CallOptions) -> T:
        try:
            step = next(exchange)
            while True:
                try:
                    answer = await self._take(step, options)
                except SheafError as error:
                    step = exchange.throw(error)
                else:
                    step = exchange.send(answer)
        except StopIteration as stop:
            result: T = stop.value
            return result

    async def _take(self, step: Send | ex.Pause | ex.HangUp, options: CallOptions) -> httpx.Response | None:
        if isinstance(step, ex.Pause):
            await asyncio.sleep(step.seconds)
            return None
        if isinstance(step, ex.HangUp):
            if connection := _alone(step.response):
                await connection.aclose()
            return None
        client = await self._connections.current()
        send = partial(self._send, client, options.max_answer_bytes)
        return await through_async(options.middleware, send)(step)

    async def _send(self, client: httpx.AsyncClient, limit: int | None, step: Send) -> httpx.Response:
        ends = _ends(step)
        with logged(step) as line, translated(self._shown, line):
            url = _parsed(self._base_url + step.path)
            request = client.build_request(
                step.method, url, headers=step.headers, content=step.content, timeout=step.timeout
            )
            # The head by itself, so that an answer that breaks off is told from one that never began.
            with in_time(ends):
                line.response = response = await client.send(request, stream=True, follow_redirects=False)
            stream = step.stream and is_stream(response)
            try:
                bound_body(response, limit, ends, stream=stream)
                if not stream:
                    await response.aread()
            except BaseException:
                await response.aclose()
                raise
            return response

    async def close(self) -> None:
        await self._connections.close()


@lru_cache(256)
def _parsed(url: str) -> httpx.URL:
    """The address; a client calls few of them, and to parse one takes as long as to write its request."""
    return httpx.URL(url)


def _ends(step: Send) -> float | None:
    """The moment until which the whole answer to a try may come."""
    seconds = step.timeout.read
    return None if seconds is None else time.monotonic() + seconds


def _alone(response: httpx.Response) -> Any:
    """The connection of an answer, where no other call shares it; None of an app in this process."""
    return None if response.http_version == "HTTP/2" else response.extensions.get("network_stream")


async def _ready(response: httpx.Response) -> httpx.Response:
    return response
