"""httpx transports that call an ASGI app in this process and hand on its body chunk by chunk.

httpx's own ASGI transport waits for the whole body, so a stream would arrive in one piece at its end.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from typing import Any, TypeAlias

import anyio
import httpx
from anyio.from_thread import BlockingPortal, start_blocking_portal
from anyio.streams.memory import MemoryObjectReceiveStream

Message: TypeAlias = MutableMapping[str, Any]
ASGIApp: TypeAlias = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
    Awaitable[None],
]


class _Body(httpx.AsyncByteStream):
    """The chunks of a response as the app sends them; closing it tells the app that the client left."""

    def __init__(self, chunks: MemoryObjectReceiveStream[bytes], gone: asyncio.Event) -> None:
        self._chunks, self._gone = chunks, gone

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._chunks:
            yield chunk

    async def aclose(self) -> None:
        self._gone.set()
        self._chunks.close()


class AsyncASGITransport(httpx.AsyncBaseTransport):
    """Calls an ASGI app in the running event loop; any of its tasks may call, and any may close."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._running: set[asyncio.Task[None]] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        content = await request.aread()
        send_chunks, chunks = anyio.create_memory_object_stream[bytes](16)
        started, gone = asyncio.Event(), asyncio.Event()
        head: Message = {}
        failed: list[Exception] = []
        received = False

        async def receive() -> Message:
            nonlocal received
            if not received:
                received = True
                return {"type": "http.request", "body": content, "more_body": False}
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                head.update(message)
                started.set()
            elif message["type"] == "http.response.body":
                with contextlib.suppress(anyio.BrokenResourceError):
                    if message.get("body"):
                        await send_chunks.send(bytes(message["body"]))
                if not message.get("more_body"):
                    send_chunks.close()

        async def run() -> None:
            try:
                await self._app(_scope(request), receive, send)
            except Exception as error:  # noqa: BLE001 - becomes a broken connection, as on a socket
                failed.append(error)
            finally:
                send_chunks.close()
                started.set()

        body = _Body(chunks, gone)
        task = asyncio.create_task(run())
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            await started.wait()
        except asyncio.CancelledError:
            await body.aclose()
            raise
        if not head:
            await body.aclose()
            cause = failed[0] if failed else None
            raise httpx.RemoteProtocolError("the app ended without a response", request=request) from cause
        return httpx.Response(head["status"], headers=head.get("headers", []), stream=body, request=request)

    async def aclose(self) -> None:
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


class ASGITransport(httpx.BaseTransport):
    """Calls an ASGI app from synchronous code, in an event loop on a thread of its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._exit = contextlib.ExitStack()
        self._portal: BlockingPortal = self._exit.enter_context(start_blocking_portal())
        self._inner = AsyncASGITransport(app)
        self._exit.callback(self._portal.call, self._inner.aclose)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = self._portal.call(self._inner.handle_async_request, request)
        assert isinstance(response.stream, httpx.AsyncByteStream)  # noqa: S101 - made by the inner transport
        body = _SyncBody(response.stream, self._portal)
        return httpx.Response(response.status_code, headers=response.headers, stream=body, request=request)

    def close(self) -> None:
        self._exit.close()


class _SyncBody(httpx.SyncByteStream):
    def __init__(self, body: httpx.AsyncByteStream, portal: BlockingPortal) -> None:
        self._body, self._portal = body, portal

    def __iter__(self) -> Iterator[bytes]:
        chunks = aiter(self._body)
        while (chunk := self._portal.call(_next_chunk, chunks)) is not None:
            yield chunk

    def close(self) -> None:
        self._portal.call(self._body.aclose)


async def _next_chunk(chunks: AsyncIterator[bytes]) -> bytes | None:
    return await anext(chunks, None)


def _scope(request: httpx.Request) -> MutableMapping[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "headers": [(key.lower(), value) for key, value in request.headers.raw],
        "scheme": request.url.scheme,
        "path": request.url.path,
        "raw_path": request.url.raw_path.split(b"?")[0],
        "query_string": request.url.query,
        "server": (request.url.host, request.url.port or 80),
        "client": ("127.0.0.1", 0),
        "root_path": "",
    }
