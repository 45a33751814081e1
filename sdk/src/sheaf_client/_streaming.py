"""Streams of typed events: progress, then the result. Errors are raised where the events are read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Generic, Self, TypeAlias, TypeVar

from sheaf_client._errors import BadResponseError
from sheaf_client._operation import ProgressT_co
from sheaf_client.contracts.base import BaseResponse

ResponseT = TypeVar("ResponseT", bound=BaseResponse)


@dataclass(frozen=True)
class ResultEvent(Generic[ResponseT]):
    """The last event of a stream that succeeded."""

    response: ResponseT
    type: str = "result"
    done: bool = True


@dataclass(frozen=True)
class UnknownEvent:
    """An event of a kind this client does not know; a newer server may send them."""

    type: str
    data: Mapping[str, Any] = field(default_factory=dict[str, Any])
    done: bool = False


Event: TypeAlias = ResultEvent[ResponseT] | ProgressT_co | UnknownEvent


class Stream(Generic[ResponseT, ProgressT_co]):
    """The events of one call.

    A context manager, so that leaving early ends the work:

        with client.time_series.stream(...) as stream:
            for event in stream:
                ...
        forecast = stream.final()
    """

    def __init__(self, open_events: Callable[[], Iterator[Event[ResponseT, ProgressT_co]]]) -> None:
        self._open_events = open_events
        self._events: Iterator[Event[ResponseT, ProgressT_co]] | None = None
        self._response: ResponseT | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Event[ResponseT, ProgressT_co]]:
        return self

    def __next__(self) -> Event[ResponseT, ProgressT_co]:
        if self._events is None:
            self._events = self._open_events()
        event = next(self._events)
        if isinstance(event, ResultEvent):
            self._response = event.response
        return event

    def final(self) -> ResponseT:
        """Read what is left and return the response."""
        for _ in self:
            pass
        return _final(self._response)

    def close(self) -> None:
        """End the call; the server stops the work between two steps."""
        if self._events is None:
            self._events = iter(())
        close = getattr(self._events, "close", None)
        if close is not None:
            close()


class AsyncStream(Generic[ResponseT, ProgressT_co]):
    """The asynchronous form of `Stream`: `async with`, `async for`, `await stream.final()`."""

    def __init__(self, open_events: Callable[[], AsyncIterator[Event[ResponseT, ProgressT_co]]]) -> None:
        self._open_events = open_events
        self._events: AsyncIterator[Event[ResponseT, ProgressT_co]] | None = None
        self._response: ResponseT | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __aiter__(self) -> AsyncIterator[Event[ResponseT, ProgressT_co]]:
        return self

    async def __anext__(self) -> Event[ResponseT, ProgressT_co]:
        if self._events is None:
            self._events = self._open_events()
        event = await anext(self._events)
        if isinstance(event, ResultEvent):
            self._response = event.response
        return event

    async def final(self) -> ResponseT:
        """Read what is left and return the response."""
        async for _ in self:
            pass
        return _final(self._response)

    async def close(self) -> None:
        """End the call; the server stops the work between two steps."""
        if self._events is None:
            self._events = _nothing()
        close = getattr(self._events, "aclose", None)
        if close is not None:
            await close()


async def _nothing() -> AsyncIterator[Any]:
    return
    yield


def _final(response: ResponseT | None) -> ResponseT:
    if response is None:
        raise BadResponseError("The stream ended without a result.")
    return response
