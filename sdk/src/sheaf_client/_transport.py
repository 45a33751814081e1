"""The seam between the typed resources and whatever answers: HTTP, an ASGI app, or models in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar

from sheaf_client._errors import ArgumentError, ClientClosedError, ProblemError
from sheaf_client._operation import Operation, ProgressT_co
from sheaf_client._raw import AsyncRawStream, RawResponse, RawStream
from sheaf_client._streaming import Event
from sheaf_client.contracts.base import BaseRequest, BaseResponse
from sheaf_client.contracts.models import ModelList

ResponseT = TypeVar("ResponseT", bound=BaseResponse)


@dataclass(frozen=True)
class CallOptions:
    """What holds for one call: its total time in seconds, its retries, headers, middleware."""

    timeout: float | None = None
    max_retries: int = 2
    #: Of an answer, or of one event of a stream; None for no limit.
    max_answer_bytes: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    #: When bodies go as MessagePack: by their size, always, or never.
    binary: Literal["auto", "always", "never"] = "auto"
    middleware: Sequence[Callable[..., Any]] = ()


@dataclass(frozen=True)
class Call(Generic[ResponseT, ProgressT_co]):
    """One typed request on its way."""

    operation: Operation[Any, ResponseT, ProgressT_co]
    request: BaseRequest
    options: CallOptions

    @property
    def path(self) -> str:
        return self.operation.path.replace("{model_name}", self.request.model_name)


@dataclass(frozen=True)
class ManyCall(Generic[ResponseT]):
    """Many typed requests for one model on their way."""

    operation: Operation[Any, ResponseT]
    requests: Sequence[BaseRequest]
    options: CallOptions


class Transport(Protocol):
    """Answers calls, waiting in the calling thread. Raises the classes of `sheaf_client.errors`.

    Those over HTTP have raw responses; the others refuse to give them.
    """

    #: Whether calls go over HTTP, so that there are raw responses and middleware.
    over_http: ClassVar[bool]

    def call(self, call: Call[ResponseT]) -> ResponseT: ...

    def call_many(self, call: ManyCall[ResponseT]) -> list[ResponseT | ProblemError]: ...

    def stream(self, call: Call[ResponseT, ProgressT_co]) -> Iterator[Event[ResponseT, ProgressT_co]]: ...

    def raw_call(self, call: Call[ResponseT], /) -> RawResponse[ResponseT]: ...

    def raw_call_many(self, call: ManyCall[ResponseT], /) -> RawResponse[list[ResponseT | ProblemError]]: ...

    def raw_stream(self, call: Call[ResponseT, ProgressT_co], /) -> RawStream[ResponseT, ProgressT_co]: ...

    def models(self, options: CallOptions) -> ModelList: ...

    def close(self) -> None: ...


class AsyncTransport(Protocol):
    """Answers calls in the running event loop."""

    over_http: ClassVar[bool]

    async def call(self, call: Call[ResponseT]) -> ResponseT: ...

    async def call_many(self, call: ManyCall[ResponseT]) -> list[ResponseT | ProblemError]: ...

    def stream(
        self, call: Call[ResponseT, ProgressT_co]
    ) -> AsyncIterator[Event[ResponseT, ProgressT_co]]: ...

    async def raw_call(self, call: Call[ResponseT], /) -> RawResponse[ResponseT]: ...

    async def raw_call_many(
        self, call: ManyCall[ResponseT], /
    ) -> RawResponse[list[ResponseT | ProblemError]]: ...

    def raw_stream(
        self, call: Call[ResponseT, ProgressT_co], /
    ) -> AsyncRawStream[ResponseT, ProgressT_co]: ...

    async def models(self, options: CallOptions) -> ModelList: ...

    async def close(self) -> None: ...


def check_open(*, closed: bool) -> None:
    """Raise `ClientClosedError` where a client has been closed."""
    if closed:
        raise ClientClosedError("This client is closed; make another.")


def no_raw_responses() -> ArgumentError:
    """What is raised where raw responses are asked of a transport that has none."""
    return ArgumentError("a local client has no raw responses: nothing goes over HTTP")
