"""The answer to a batch, written part by part: at no time is there all of it as text.

Each outcome is let go of once it is written, and the next is written once the client has taken the last.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Iterator
from functools import partial

import anyio.to_thread
import zstandard

from sheaf.http.memory import Memory, Share
from sheaf.http.problems import as_problem
from sheaf.http.writing import encode_document
from sheaf_client.contracts.base import BaseResponse
from sheaf_client.errors import ProblemError

#: Bytes that a part has at least, but for the last.
PART = 256 * 1024


def batch_parts(outcomes: list[BaseResponse | ProblemError], *, packed: bool) -> Iterator[bytes]:
    """The document `{"responses": […]}` in parts; the list is emptied on the way."""
    count = len(outcomes)
    outcomes.reverse()
    opened = b"\x81\xa9responses\xdd" + struct.pack(">I", count) if packed else b'{"responses":['
    part, size = [opened], 0
    while outcomes:
        content = _written(outcomes.pop(), packed=packed)
        part.append(content)
        size += len(content)
        if outcomes and not packed:
            part.append(b",")
        if size >= PART:
            del content
            yield b"".join(part)
            part, size = [], 0
    if not packed:
        part.append(b"]}")
    if part:
        yield b"".join(part)


def _written(outcome: BaseResponse | ProblemError, *, packed: bool) -> bytes:
    if not isinstance(outcome, ProblemError):
        try:
            return encode_document(outcome, packed=packed)
        except Exception as error:  # noqa: BLE001 - the others' answers are whole, and the head may be sent
            asked, outcome = outcome.request_id, as_problem(error)
            outcome.request_id = str(asked)
    return encode_document(outcome.to_problem(), packed=packed)


async def rest_of(first: bytes, parts: Iterator[bytes], memory: Memory, share: Share) -> AsyncIterator[bytes]:
    """The parts, from the first on; each is written on a worker thread."""
    part: bytes | None = first
    while part is not None:
        yield part
        part = await memory.run(partial(next, parts, None), PART, share)


async def compressed_parts(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The parts as one frame of zstd."""
    compressor = zstandard.ZstdCompressor(level=1).compressobj()
    async for part in parts:
        if packed := await anyio.to_thread.run_sync(compressor.compress, part):
            yield packed
    yield compressor.flush()
