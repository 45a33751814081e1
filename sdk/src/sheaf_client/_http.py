"""Calls over HTTP with httpx: two thin drivers of the same exchanges, one that waits and one that awaits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import TypeVar

import httpx

from sheaf_client import _exchange as ex
from sheaf_client._errors import ProblemError, SheafError
from sheaf_client._streaming import Event
from sheaf_client._transport import Call, CallOptions, ManyCall
from sheaf_client.contracts.base import BaseResponse
from sheaf_client.contracts.models import ModelList

T = TypeVar("T")
ResponseT = TypeVar("ResponseT", bound=BaseResponse)


class HTTPTransport:
    """Calls over a synchronous httpx client, which it closes only if it made it."""

    def __init__(self, client: httpx.Client, *, own: bool) -> None:
        self._client = client
        self._own = own

    def call(self, call: Call[ResponseT]) -> ResponseT:
        return self._drive(ex.predict(call))

    def call_many(self, call: ManyCall[ResponseT]) -> list[ResponseT | ProblemError]:
        return self._drive(ex.predict_many(call))

    def models(self, options: CallOptions) -> ModelList:
        return self._drive(ex.list_models(options))

    def stream(self, call: Call[ResponseT]) -> Iterator[Event[ResponseT]]:
        response = self._drive(ex.open_stream(call))
        reader = ex.EventReader(call.operation.response)
        try:
            with ex.translated():
                for chunk in response.iter_bytes():
                    yield from reader.feed(chunk)
                    if reader.done:
                        return
            reader.finish()
        finally:
            response.close()

    def _drive(self, exchange: ex.Exchange[T]) -> T:
        try:
            step = next(exchange)
            while True:
                try:
                    answer = self._take(step)
                except SheafError as error:
                    step = exchange.throw(error)
                else:
                    step = exchange.send(answer)
        except StopIteration as stop:
            result: T = stop.value
            return result

    def _take(self, step: ex.Send | ex.Pause) -> httpx.Response | None:
        if isinstance(step, ex.Pause):
            time.sleep(step.seconds)
            return None
        with ex.translated():
            request = self._client.build_request(
                step.method, step.path, headers=step.headers, content=step.content, timeout=step.timeout
            )
            response = self._client.send(request, stream=step.stream)
            if not response.is_success:
                response.read()
            return response

    def close(self) -> None:
        if self._own:
            self._client.close()


class AsyncHTTPTransport:
    """Calls over an asynchronous httpx client, which it closes only if it made it."""

    def __init__(self, client: httpx.AsyncClient, *, own: bool) -> None:
        self._client = client
        self._own = own

    async def call(self, call: Call[ResponseT]) -> ResponseT:
        return await self._drive(ex.predict(call))

    async def call_many(self, call: ManyCall[ResponseT]) -> list[ResponseT | ProblemError]:
        return await self._drive(ex.predict_many(call))

    async def models(self, options: CallOptions) -> ModelList:
        return await self._drive(ex.list_models(options))

    async def stream(self, call: Call[ResponseT]) -> AsyncIterator[Event[ResponseT]]:
        response = await self._drive(ex.open_stream(call))
        reader = ex.EventReader(call.operation.response)
        try:
            with ex.translated():
                async for chunk in response.aiter_bytes():
                    for event in reader.feed(chunk):
                        yield event
                    if reader.done:
                        return
            reader.finish()
        finally:
            await response.aclose()

    async def _drive(self, exchange: ex.Exchange[T]) -> T:
        try:
            step = next(exchange)
            while True:
                try:
                    answer = await self._take(step)
                except SheafError as error:
                    step = exchange.throw(error)
                else:
                    step = exchange.send(answer)
        except StopIteration as stop:
            result: T = stop.value
            return result

    async def _take(self, step: ex.Send | ex.Pause) -> httpx.Response | None:
        if isinstance(step, ex.Pause):
            await asyncio.sleep(step.seconds)
            return None
        with ex.translated():
            request = self._client.build_request(
                step.method, step.path, headers=step.headers, content=step.content, timeout=step.timeout
            )
            response = await self._client.send(request, stream=step.stream)
            if not response.is_success:
                await response.aread()
            return response

    async def close(self) -> None:
        if self._own:
            await self._client.aclose()
