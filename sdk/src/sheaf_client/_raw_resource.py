"""The base of the generated resources of `with_raw_response`: the same calls, answered as HTTP has it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Concatenate, TypeVar

from typing_extensions import ParamSpec

from sheaf_client._errors import ProblemError
from sheaf_client._operation import Operation, ProgressT_co
from sheaf_client._raw import AsyncRawStream, RawResponse, RawStream
from sheaf_client._resource import AsyncCaller, Caller, TimeLimit, prepare, prepare_many
from sheaf_client._signatures import like
from sheaf_client._streaming import AsyncStream, Stream
from sheaf_client.contracts.base import BaseRequest, BaseResponse

P = ParamSpec("P", default=...)
ResponseT = TypeVar("ResponseT", bound=BaseResponse)


class RawResource:
    """Operations of one model type, waiting for each answer."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def _call(
        self, operation: Operation[Any, ResponseT], args: tuple[object, ...], fields: dict[str, Any]
    ) -> RawResponse[ResponseT]:
        call = prepare(self._caller, operation, _request(args), fields)
        with TimeLimit(call.options):
            return self._caller.transport.raw_call(call)

    def _call_many(
        self,
        operation: Operation[Any, ResponseT],
        requests: Sequence[BaseRequest],
        timeout: float | None,
        headers: Mapping[str, str] | None,
    ) -> RawResponse[list[ResponseT | ProblemError]]:
        call = prepare_many(self._caller, operation, requests, timeout, headers)
        with TimeLimit(call.options):
            return self._caller.transport.raw_call_many(call)

    def _stream(
        self,
        operation: Operation[Any, ResponseT, ProgressT_co],
        args: tuple[object, ...],
        fields: dict[str, Any],
    ) -> RawStream[ResponseT, ProgressT_co]:
        return self._caller.transport.raw_stream(prepare(self._caller, operation, _request(args), fields))


class AsyncRawResource:
    """Operations of one model type, awaited."""

    def __init__(self, caller: AsyncCaller) -> None:
        self._caller = caller

    async def _call(
        self, operation: Operation[Any, ResponseT], args: tuple[object, ...], fields: dict[str, Any]
    ) -> RawResponse[ResponseT]:
        call = prepare(self._caller, operation, _request(args), fields)
        with TimeLimit(call.options):
            return await self._caller.transport.raw_call(call)

    async def _call_many(
        self,
        operation: Operation[Any, ResponseT],
        requests: Sequence[BaseRequest],
        timeout: float | None,
        headers: Mapping[str, str] | None,
    ) -> RawResponse[list[ResponseT | ProblemError]]:
        call = prepare_many(self._caller, operation, requests, timeout, headers)
        with TimeLimit(call.options):
            return await self._caller.transport.raw_call_many(call)

    def _stream(
        self,
        operation: Operation[Any, ResponseT, ProgressT_co],
        args: tuple[object, ...],
        fields: dict[str, Any],
    ) -> AsyncRawStream[ResponseT, ProgressT_co]:
        return self._caller.transport.raw_stream(prepare(self._caller, operation, _request(args), fields))


def _request(args: tuple[object, ...]) -> object:
    """What a call gives by position."""
    if len(args) > 1:
        raise TypeError(f"a call takes one argument by position, its request; {len(args)} were given")
    return args[0] if args else None


# Decorators of the methods of plain resources: the same parameters, overloads and all, on the classes above.


def raw(
    operation: Operation[Any, ResponseT],
) -> Callable[
    [Callable[Concatenate[Any, P], ResponseT]], Callable[Concatenate[RawResource, P], RawResponse[ResponseT]]
]:
    """Of a method that calls the operation: one with a raw response."""

    def decorate(
        method: Callable[Concatenate[Any, P], ResponseT],
    ) -> Callable[Concatenate[RawResource, P], RawResponse[ResponseT]]:
        def call(self: RawResource, /, *args: P.args, **fields: P.kwargs) -> RawResponse[ResponseT]:
            return self._call(operation, args, fields)  # pyright: ignore[reportPrivateUsage]

        return like(method, call, "RawResponse[{}]".format)

    return decorate


def raw_stream(
    operation: Operation[Any, ResponseT, ProgressT_co],
) -> Callable[
    [Callable[Concatenate[Any, P], Stream[ResponseT, ProgressT_co]]],
    Callable[Concatenate[RawResource, P], RawStream[ResponseT, ProgressT_co]],
]:
    """Of a streaming method: one with a raw stream."""

    def decorate(
        method: Callable[Concatenate[Any, P], Stream[ResponseT, ProgressT_co]],
    ) -> Callable[Concatenate[RawResource, P], RawStream[ResponseT, ProgressT_co]]:
        def stream(
            self: RawResource, /, *args: P.args, **fields: P.kwargs
        ) -> RawStream[ResponseT, ProgressT_co]:
            return self._stream(operation, args, fields)  # pyright: ignore[reportPrivateUsage]

        return like(method, stream, _as_raw)

    return decorate


def raw_async(
    operation: Operation[Any, ResponseT],
) -> Callable[
    [Callable[Concatenate[Any, P], Coroutine[Any, Any, ResponseT]]],
    Callable[Concatenate[AsyncRawResource, P], Coroutine[Any, Any, RawResponse[ResponseT]]],
]:
    """Of a coroutine method: one with a raw response."""

    def decorate(
        method: Callable[Concatenate[Any, P], Coroutine[Any, Any, ResponseT]],
    ) -> Callable[Concatenate[AsyncRawResource, P], Coroutine[Any, Any, RawResponse[ResponseT]]]:
        async def call(
            self: AsyncRawResource, /, *args: P.args, **fields: P.kwargs
        ) -> RawResponse[ResponseT]:
            return await self._call(operation, args, fields)  # pyright: ignore[reportPrivateUsage]

        return like(method, call, "RawResponse[{}]".format)

    return decorate


def raw_async_stream(
    operation: Operation[Any, ResponseT, ProgressT_co],
) -> Callable[
    [Callable[Concatenate[Any, P], AsyncStream[ResponseT, ProgressT_co]]],
    Callable[Concatenate[AsyncRawResource, P], AsyncRawStream[ResponseT, ProgressT_co]],
]:
    """Of a streaming method of an asynchronous client: one with a raw stream."""

    def decorate(
        method: Callable[Concatenate[Any, P], AsyncStream[ResponseT, ProgressT_co]],
    ) -> Callable[Concatenate[AsyncRawResource, P], AsyncRawStream[ResponseT, ProgressT_co]]:
        def stream(
            self: AsyncRawResource, /, *args: P.args, **fields: P.kwargs
        ) -> AsyncRawStream[ResponseT, ProgressT_co]:
            return self._stream(operation, args, fields)  # pyright: ignore[reportPrivateUsage]

        return like(method, stream, _as_raw)

    return decorate


def _as_raw(stream: str) -> str:
    return stream.replace("Stream[", "RawStream[", 1)
