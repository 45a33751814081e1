"""Bodies of answers, read within bounds: so many bytes once they are unpacked, and until a moment.

httpx unpacks each piece that comes as a whole, and a piece of 64 KiB may hold gigabytes; its time limit is
for each piece, so that a byte now and then keeps a call forever. So bodies are unpacked and timed here.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import Any, Protocol

import anyio
import httpx

from sheaf_client._deadlines import until
from sheaf_client._errors import BadResponseError, CallTimeoutError

#: Most bytes that are unpacked at once.
_PIECE = 256 * 1024
#: Packed bytes that zstd is given at once: a block of four of them may hold 128 KiB.
_SLICE = 1024
#: Largest window of zstd, in bytes: what RFC 8878 asks decoders to support.
_WINDOW = 8 * 2**20


@cache
def acceptable_encodings() -> str:
    """What answers may be packed by: what can be unpacked piece by piece."""
    return "zstd, gzip, deflate" if find_spec("zstandard") else "gzip, deflate"


class _Unpacker(Protocol):
    def feed(self, data: bytes) -> Iterator[bytes]: ...

    def end(self) -> bool:
        """Whether what was packed is complete."""
        ...


class _Plain:
    def feed(self, data: bytes) -> Iterator[bytes]:
        yield data

    def end(self) -> bool:
        return True


class _Zlib:
    """gzip, of one member or several, and deflate with or without the frame of zlib."""

    def __init__(self, *, gzip: bool) -> None:
        self._gzip = gzip
        self._packed: Any = None
        self._held = b""
        self._ended = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        data, self._held, more = self._held + data, b"", False
        while data or more:
            more = False
            if self._packed is None:
                # Zeros behind a member are padding; anything else begins another.
                data = data.lstrip(b"\0") if self._ended else data
                if len(data) < 2:
                    self._held = data
                    return
                self._packed = zlib.decompressobj(self._window(data))
            piece = self._packed.decompress(data, _PIECE)
            if piece:
                yield piece
            if self._packed.eof:
                data, self._packed, self._ended = self._packed.unused_data, None, True
            else:
                data = self._packed.unconsumed_tail
                # A full piece may have left more within, which asks for no more data.
                more = len(piece) == _PIECE

    def end(self) -> bool:
        return self._packed is None and not self._held

    def _window(self, data: bytes) -> int:
        if self._gzip:
            return zlib.MAX_WBITS | 16
        framed = data[0] & 0x0F == zlib.DEFLATED and int.from_bytes(data[:2], "big") % 31 == 0
        return zlib.MAX_WBITS if framed else -zlib.MAX_WBITS


class _Zstd:
    def __init__(self) -> None:
        self._packed: Any = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        import zstandard

        at = 0
        while at < len(data):
            if self._packed is None:
                self._packed = zstandard.ZstdDecompressor(max_window_size=_WINDOW).decompressobj()
            given = data[at : at + _SLICE]
            try:
                piece = self._packed.decompress(given)
            except zstandard.ZstdError as error:
                raise zlib.error(str(error)) from None
            if piece:
                yield piece
            at += len(given)
            if self._packed.eof:  # another frame may follow
                at -= len(self._packed.unused_data)
                self._packed = None

    def end(self) -> bool:
        return self._packed is None


def header(response: httpx.Response, name: bytes) -> str:
    """The values of a header by its name in lower case; httpx's own look-up guesses an encoding each time."""
    return b", ".join([value for key, value in response.headers.raw if key.lower() == name]).decode("latin-1")


def _unpacker(response: httpx.Response) -> _Unpacker:
    """What unpacks the body; httpx is told that nothing is left to it."""
    named = header(response, b"content-encoding").lower()
    if not named:
        return _Plain()
    encodings = [name for name in (part.strip() for part in named.split(",")) if name not in ("", "identity")]
    if not encodings:
        return _Plain()
    known: dict[str, Callable[[], _Unpacker]] = {
        "gzip": lambda: _Zlib(gzip=True),
        "x-gzip": lambda: _Zlib(gzip=True),
        "deflate": lambda: _Zlib(gzip=False),
    }
    if "zstd" in acceptable_encodings():
        known["zstd"] = _Zstd
    if len(encodings) > 1 or encodings[0] not in known:
        raise BadResponseError(
            f"The answer is encoded as {named!r}; this client takes {acceptable_encodings()}."
        )
    del response.headers["content-encoding"]
    return known[encodings[0]]()


def bound_body(response: httpx.Response, limit: int | None, ends: float | None, *, stream: bool) -> None:
    """Have the body of an unread answer end by an error where it passes its bounds.

    Args:
        response: Its body is unpacked from here on.
        limit: Most bytes of the whole body, packed and unpacked; None, or a stream's, for no limit.
        ends: Moment of `time.monotonic` until which the body may come.
        stream: Whether its pieces are handed on as they come, rather than all at the end.

    Raises:
        BadResponseError: Its head says already that it cannot be read, or is too large.
    """
    if stream:
        limit = None  # each event has the limit
    told = header(response, b"content-length")
    # More digits than any length has would be work to read.
    if limit is not None and told.isdecimal() and (len(told) > 20 or int(told) > limit):
        raise BadResponseError(too_large(limit))
    if ends is not None and (timeout := response.request.extensions.get("timeout")):
        # httpx takes the body's time limit when it begins, from here.
        timeout["read"] = max(0.0, ends - time.monotonic())
    body = _Body(_unpacker(response), limit, ends, whole=not stream)
    if isinstance(response.stream, httpx.AsyncByteStream):
        response.stream = _AsyncBounded(response.stream, body)
    else:
        response.stream = _Bounded(response.stream, body)


def too_large(limit: int, what: str = "The answer") -> str:
    """What is said of an answer or an event beyond the limit."""
    return f"{what} is larger than {limit} bytes; the client's `max_answer_bytes` sets the limit."


class _Body:
    """Counts and unpacks what comes."""

    def __init__(self, unpacker: _Unpacker, limit: int | None, ends: float | None, *, whole: bool) -> None:
        self.ends = ends
        self._unpacker, self._limit, self._whole = unpacker, limit, whole
        self._packed = self._unpacked = 0
        # Pieces of a few bytes would each take the room of an object.
        self._held = bytearray()

    def take(self, data: bytes) -> Iterator[bytes]:
        self._packed = self._checked(self._packed + len(data))
        try:
            for piece in self._unpacker.feed(data):
                self._unpacked = self._checked(self._unpacked + len(piece))
                self.check_time()
                if self._whole:
                    self._held += piece
                else:
                    yield piece
        except zlib.error as error:
            raise BadResponseError(f"The answer cannot be unpacked: {error}.") from error

    def end(self) -> bytes:
        """What is left to hand on once all has come."""
        if self._packed and not self._unpacker.end():
            raise BadResponseError("The answer breaks off within its packed content.")
        return bytes(self._held)

    def check_time(self) -> None:
        if self.ends is not None and time.monotonic() > self.ends:
            raise CallTimeoutError("The time for this call is over.")

    def _checked(self, size: int) -> int:
        if self._limit is not None and size > self._limit:
            raise BadResponseError(too_large(self._limit))
        return size


class _Bounded(httpx.SyncByteStream):
    def __init__(self, inner: httpx.SyncByteStream, body: _Body) -> None:
        self._inner, self._body = inner, body

    def __iter__(self) -> Iterator[bytes]:
        chunks = iter(self._inner)
        while True:
            with until(self._body.ends):
                data = next(chunks, None)
            if data is None:
                break
            self._body.check_time()
            yield from self._body.take(data)
        if rest := self._body.end():
            yield rest

    def close(self) -> None:
        self._inner.close()


class _AsyncBounded(httpx.AsyncByteStream):
    def __init__(self, inner: httpx.AsyncByteStream, body: _Body) -> None:
        self._inner, self._body = inner, body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        chunks = aiter(self._inner)
        while True:
            with in_time(self._body.ends):
                data = await anext(chunks, None)
            if data is None:
                break
            for piece in self._body.take(data):
                yield piece
        if rest := self._body.end():
            yield rest

    async def aclose(self) -> None:
        await self._inner.aclose()


@contextmanager
def in_time(ends: float | None) -> Generator[None]:
    """Cancel what is awaited within at a moment of `time.monotonic`; raises `CallTimeoutError`."""
    left = None if ends is None else max(0.0, ends - time.monotonic())
    try:
        with anyio.fail_after(left):
            yield
    except TimeoutError as error:
        raise CallTimeoutError("The time for this call is over.") from error
