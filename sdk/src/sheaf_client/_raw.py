"""Answers as HTTP has them, with the typed value one call away: what `client.with_raw_response` gives."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from sheaf_client._operation import ProgressT_co
from sheaf_client._streaming import AsyncStream, Event, Stream
from sheaf_client.contracts.base import BaseResponse

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
ResponseT = TypeVar("ResponseT", bound=BaseResponse)


class RawResponse(Generic[T]):
    """A successful answer that was read and not yet parsed.

    Attributes:
        http_response: status, headers and body; httpx's own object.
    """

    def __init__(self, http_response: httpx.Response, read: Callable[[httpx.Response], T]) -> None:
        self.http_response = http_response
        self._read = read

    @property
    def request_id(self) -> str | None:
        """Identifier of the request, from the answer's headers."""
        return request_id_of(self.http_response)

    def parse(self) -> T:
        """The typed answer; raises `BadResponseError` where the body does not fit the contract."""
        return self._read(self.http_response)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.http_response.status_code}, request_id={self.request_id!r})"


class RawStream(Generic[ResponseT, ProgressT_co]):
    """A stream whose body is read as it comes; a context manager, which closes the connection."""

    def __init__(
        self,
        open_response: Callable[[], httpx.Response],
        events: Callable[[httpx.Response], Iterator[Event[ResponseT, ProgressT_co]]],
    ) -> None:
        self._open, self._events = open_response, events
        self._response: httpx.Response | None = None

    @property
    def http_response(self) -> httpx.Response:
        """Status and headers; the call is made when this is first read."""
        if self._response is None:
            self._response = self._open()
        return self._response

    @property
    def request_id(self) -> str | None:
        """Identifier of the request, from the answer's headers."""
        return request_id_of(self.http_response)

    def iter_bytes(self) -> Iterator[bytes]:
        """The body, chunk by chunk, as the server sent it."""
        return self.http_response.iter_bytes()

    def parse(self) -> Stream[ResponseT, ProgressT_co]:
        """The typed events of the same body."""
        response = self.http_response
        return Stream(lambda: self._events(response))

    def close(self) -> None:
        """End the call."""
        if self._response is not None:
            self._response.close()

    def __enter__(self) -> Self:
        _ = self.http_response
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncRawStream(Generic[ResponseT, ProgressT_co]):
    """The asynchronous form of `RawStream`; the call is made on entering `async with`."""

    def __init__(
        self,
        open_response: Callable[[], Awaitable[httpx.Response]],
        events: Callable[[httpx.Response], AsyncIterator[Event[ResponseT, ProgressT_co]]],
    ) -> None:
        self._open, self._events = open_response, events
        self._response: httpx.Response | None = None

    @property
    def http_response(self) -> httpx.Response:
        """Status and headers."""
        if self._response is None:
            raise RuntimeError(
                "enter the stream first: async with client.with_raw_response.….stream(…) as raw"
            )
        return self._response

    @property
    def request_id(self) -> str | None:
        """Identifier of the request, from the answer's headers."""
        return request_id_of(self.http_response)

    def iter_bytes(self) -> AsyncIterator[bytes]:
        """The body, chunk by chunk, as the server sent it."""
        return self.http_response.aiter_bytes()

    def parse(self) -> AsyncStream[ResponseT, ProgressT_co]:
        """The typed events of the same body."""
        response = self.http_response
        return AsyncStream(lambda: self._events(response))

    async def close(self) -> None:
        """End the call."""
        if self._response is not None:
            await self._response.aclose()

    async def __aenter__(self) -> Self:
        if self._response is None:
            self._response = await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def request_id_of(response: httpx.Response) -> str | None:
    """The identifier that the answer's headers carry."""
    found: str | None = response.headers.get("x-request-id")
    return found
