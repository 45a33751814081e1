"""Reads request bodies into contracts: size, time, type and depth are checked before anything is decoded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

from starlette.types import Receive

from sheaf.contract.decoding import RequestT, decode_text, decode_value, parse
from sheaf.http.encodings import JSON_TYPE, bound_of, decompressor, media_type, too_large
from sheaf.http.exchange import Exchange
from sheaf.http.limits import Limits
from sheaf.http.memory import Memory, Share
from sheaf.http.nesting import MAX_STEPS, ONE_REQUEST, Names, count_msgpack, is_json_deeper
from sheaf.http.patience import Patience
from sheaf.http.weights import NOTHING, Weight, json_weight, packed_weight
from sheaf_client.contracts.problem import Fault
from sheaf_client.errors import (
    InvalidRequestError,
    MalformedRequestError,
    SlowRequestError,
    UnavailableError,
    UnsupportedMediaTypeError,
)
from sheaf_client.protocol import (
    MAX_TEXT,
    MSGPACK_TYPE,
    pointer,
)

T = TypeVar("T")
ContentT = TypeVar("ContentT", bytes, bytearray)

#: Bodies and events over this many bytes are read and written on a worker thread, so that others are served.
OFFLOAD = 128 * 1024
#: The same for what takes several passes in Python: a body that has a fault, or has requests inside.
SLOW = 16 * 1024
#: Parts of a MessagePack body that are looked at one by one on the event loop; a file or a tensor is one.
_FEW_PARTS = 1000
#: So little memory is nobody's share.
FREE = 256 * 1024
#: Pieces of a body that may be small, and the bytes that the others must have on average.
_FREE_CHUNKS, _MIN_CHUNK = 4096, 64


@dataclass(slots=True, eq=False)
class Body:
    """A request body, decompressed: JSON, or MessagePack with tensors and media as raw bytes."""

    content: bytes
    packed: bool
    share: Share
    weight: Weight = NOTHING
    #: Whether it is not measured: that alone would hold others up.
    scattered: bool = False
    names: Names = ONE_REQUEST

    def measure(self, limit: int) -> None:
        """Tell what it weighs.

        Raises:
            MalformedRequestError: It goes deeper than `limit`.
            RequestTooLargeError: Its objects have more members than `names`.
        """
        if not self.weigh(limit):
            raise _too_deep(limit)

    def weigh(self, limit: int, most: int = MAX_STEPS) -> bool:
        """`measure` that tells of depth by False, also where `most` steps through MessagePack do not do."""
        if not self.packed:
            self.weight = json_weight(self.content)
            return not is_json_deeper(self.content, limit, self.names)
        counts = count_msgpack(self.content, limit, most, self.names)
        if counts is None:
            return False
        self.weight = packed_weight(self.content, counts)
        return True

    def take(self) -> None:
        """Hold what it takes to read it."""
        if self.weight.read > FREE:
            self.share.take(max(0, self.weight.read - self.share.size))  # the bytes are held by now

    def settle(self) -> None:
        """Hold what was made of it alone: nobody has its bytes any more."""
        if self.share.size:
            self.share.hold(self.weight.kept)

    def parse(self) -> Any:
        """The plain value of the body; raises `MalformedRequestError` with the place."""
        if self.share.size:
            self.share.take(self.weight.kept)  # beside the contract that is made of it
        return parse(self.content, packed=self.packed, what="The body")


def body_at_once(exchange: Exchange, limits: Limits, share: Share) -> Body | None:
    """The body where it came with its head and is small and plain; else None, and `read_body` has it.

    Within the limits on its size and, unless it is scattered, its depth, by its content type.
    """
    content = None if exchange.joined(b"content-encoding") else exchange.whole_body(OFFLOAD)
    if content is None:
        return None
    body = Body(_within(content, limits.max_body), _is_packed(exchange), share)
    if body.weigh(limits.max_depth, _FEW_PARTS):
        body.take()
    elif body.packed:
        body.scattered = True
    else:
        raise _too_deep(limits.max_depth)
    return body


async def read_body(
    exchange: Exchange, limits: Limits, memory: Memory, share: Share, names: Names = ONE_REQUEST
) -> Body:
    """The body, by its content type: within the limits on its size, its time, its depth and its memory."""
    packed = _is_packed(exchange)
    encoding = exchange.joined(b"content-encoding")
    decompress = decompressor(encoding, limits) if encoding else None
    declared = exchange.header(b"content-length")
    if declared.isdigit() and int(declared) > limits.max_body:
        raise too_large(limits.max_body)
    content = await _receive(exchange.receive, limits, share)
    if decompress is not None:
        decompressed = partial(_decompressed, content, decompress, share, limits)
        content = await memory.run(decompressed, len(content), share, frees=True)
    body = Body(content, packed, share, names=names)
    measure = partial(body.measure, limits.max_depth)
    most = SLOW if packed else OFFLOAD
    await offload(len(content), measure, memory, share, most=most, frees=not packed)
    body.take()
    return body


def _decompressed(
    content: bytes, decompress: Callable[[bytes], bytes], share: Share, limits: Limits
) -> bytes:
    """What was compressed. As much as it may become is held meanwhile."""
    share.take(bound_of(content, limits))
    plain = decompress(content)
    share.hold(len(plain))
    return plain


def _is_packed(exchange: Exchange) -> bool:
    """Whether a body is MessagePack, by its content type; raises where it is neither that nor JSON."""
    media = exchange.header(b"content-type")
    if media != JSON_TYPE:
        media = media_type(media)
    if media not in (JSON_TYPE, MSGPACK_TYPE):
        raise UnsupportedMediaTypeError(
            f"Send {JSON_TYPE} or {MSGPACK_TYPE}, not {media[:80] or 'a body without a content type'}."
        )
    return media == MSGPACK_TYPE


async def _receive(receive: Receive, limits: Limits, share: Share) -> bytes:
    """The bytes of a body; raises where there are too many, or they come too slowly."""
    loop = asyncio.get_running_loop()
    patience = Patience(limits, loop.time())
    try:
        async with asyncio.timeout_at(patience.until(loop.time())) as pause:
            message = await receive()
            content, chunks = bytearray(), 0
            while message["type"] == "http.request":
                piece: bytes = message.get("body", b"")
                share.take(len(piece))
                content += piece
                chunks += 1
                _within(content, limits.max_body)
                if not message.get("more_body", False):
                    return bytes(content)
                if chunks > _FREE_CHUNKS + len(content) // _MIN_CHUNK:
                    raise MalformedRequestError("The body comes in too many small pieces.")
                pause.reschedule(patience.until(loop.time(), len(piece)))
                message = await receive()
    except TimeoutError:
        raise SlowRequestError("The body did not come in time.") from None
    raise UnavailableError("The client went away.")


def _too_deep(limit: int) -> MalformedRequestError:
    return MalformedRequestError(f"The body nests deeper than {limit}, or in too many places.")


def _within(content: ContentT, limit: int) -> ContentT:
    if len(content) > limit:
        raise too_large(limit)
    return content


async def offload(
    size: int,
    work: Callable[[], T],
    memory: Memory,
    share: Share | None = None,
    *,
    most: int = OFFLOAD,
    frees: bool = False,
) -> T:
    """Do work on a body of `size` bytes here, or on a worker thread where it would hold others up.

    `share` and `frees` are those of `Memory.run`.
    """
    return await memory.run(work, size, share, frees=frees) if size > most else work()


def decode_at_once(body: Body, kind: type[RequestT], model_name: str) -> RequestT | None:
    """`decode` for a body of `body_at_once`; None where it may hold others up: scattered, or long and bad."""
    if body.scattered:
        return None
    if not body.packed:
        request = decode_text(body.content, kind, model_name)
        if request is not None or len(body.content) > SLOW:
            return request
    return decode_value(body.parse(), kind, model_name)


def decode(body: Body, kind: type[RequestT], model_name: str) -> RequestT:
    """The contract in a body, with the name that the model has here."""
    request = None if body.packed else decode_text(body.content, kind, model_name)
    return decode_value(body.parse(), kind, model_name) if request is None else request


async def parsed(body: Body, memory: Memory) -> Any:
    """The plain value of a body; raises `MalformedRequestError` with the place."""
    return await offload(len(body.content), body.parse, memory, body.share, most=SLOW)


def parse_batch(body: Body, limit: int) -> Sequence[Any]:
    """The items of `{"requests": […]}`, not yet decoded."""
    value = body.parse()
    content = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    items = content.get("requests")
    if not isinstance(items, list):
        fault = Fault(
            code="wrong_type" if items is not None else "missing",
            path="/requests",
            message="Must be an array.",
        )
        raise InvalidRequestError("A batch is an object with `requests`.", errors=[fault])
    if len(content) > 1:
        unknown = next(str(key)[:MAX_TEXT] for key in content if key != "requests")
        fault = Fault(code="unknown_field", path=pointer([unknown]), message="A batch has `requests` alone.")
        raise InvalidRequestError("A batch is an object with `requests`.", errors=[fault])
    requests = cast("Sequence[Any]", items)
    if not 1 <= len(requests) <= limit:
        code = "too_long" if requests else "too_short"
        fault = Fault(code=code, path="/requests", message=f"Must have 1 to {limit} items.")
        raise InvalidRequestError("The batch is empty or too long.", errors=[fault])
    return requests
