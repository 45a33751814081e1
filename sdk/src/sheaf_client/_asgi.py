"""httpx transports that call an ASGI app in this process and hand on its body chunk by chunk.

httpx's own ASGI transport waits for the whole body, so a stream would arrive in one piece at its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, MutableMapping
from concurrent.futures import Future
from typing import Any, TypeAlias, TypeVar

import anyio
import httpx
from anyio.streams.memory import MemoryObjectReceiveStream

T = TypeVar("T")

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
        self.leave()

    def leave(self) -> None:
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


class _LoopThread:
    """An event loop on a thread of its own, for one transport; nothing waits for it when the program ends."""

    def __init__(self) -> None:
        started: Future[asyncio.AbstractEventLoop] = Future()
        self._ended = asyncio.Event()
        run = _until(self._ended, started)
        self._thread = threading.Thread(target=asyncio.run, args=(run,), name="sheaf-asgi", daemon=True)
        self._thread.start()
        self._loop = started.result()
        # One that nobody closed ends with its last user. To wait for that here could be to wait for a thread
        # that runs no more: at the end of the program, and in a fork.
        self._end = weakref.finalize(self, self._loop.call_soon_threadsafe, self._ended.set)
        self._end.atexit = False

    @property
    def open(self) -> bool:
        """Whether it has not been closed."""
        return self._end.alive

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """What the coroutine returns or raises, waiting for it in the calling thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def tell(self, what: Callable[[], None]) -> None:
        """Have it called soon, without waiting; not at all where the loop has ended."""
        if self.open:
            self._loop.call_soon_threadsafe(what)

    def close(self) -> None:
        """End the loop, and wait for it."""
        self._end()
        self._thread.join()


async def _until(ended: asyncio.Event, started: Future[asyncio.AbstractEventLoop]) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_tell)
    started.set_result(loop)
    await ended.wait()


def _tell(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what went wrong in the loop; that tasks are let go of at the end of the program is no fault."""
    if not sys.is_finalizing():
        loop.default_exception_handler(context)


class ASGITransport(httpx.BaseTransport):
    """Calls an ASGI app from synchronous code, in an event loop on a thread of its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._inner = AsyncASGITransport(app)
        self._loop = _LoopThread()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = self._loop.call(self._inner.handle_async_request(request))
        assert isinstance(response.stream, _Body)  # noqa: S101 - made by the inner transport
        body = _SyncBody(response.stream, self._loop)
        return httpx.Response(response.status_code, headers=response.headers, stream=body, request=request)

    def close(self) -> None:
        if self._loop.open:
            self._loop.call(self._inner.aclose())
            self._loop.close()


class _SyncBody(httpx.SyncByteStream):
    def __init__(self, body: _Body, loop: _LoopThread) -> None:
        self._body, self._loop = body, loop

    def __iter__(self) -> Iterator[bytes]:
        chunks = aiter(self._body)
        while (chunk := self._loop.call(_next_chunk(chunks))) is not None:
            yield chunk

    def close(self) -> None:
        self._loop.tell(self._body.leave)


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
