"""How bodies are encoded: content types, what the caller accepts, and compression with a cap on its ratio."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from typing import Any

import zstandard

from sheaf.http.limits import Limits
from sheaf.http.writing import encode_document, encode_short
from sheaf_client.contracts.base import BaseResponse
from sheaf_client.errors import MalformedRequestError, RequestTooLargeError, UnsupportedMediaTypeError
from sheaf_client.protocol import MSGPACK_TYPE

JSON_TYPE = "application/json"
_JSON, _MSGPACK = JSON_TYPE.encode(), MSGPACK_TYPE.encode()
_QUALITY = re.compile(r"0(\.\d*)?|\.\d+|1(\.0*)?")
#: Answers smaller than this are not worth compressing.
MIN_COMPRESSED = 16 * 1024
#: Items of a list in a header that are looked at, and parameters of each; a head has room for thousands.
_MOST_ITEMS, _MOST_PARAMETERS = 64, 8
#: Members of a gzip file that a body may be made of, and bytes of it that are unpacked at a time.
_MOST_MEMBERS, _GZIP_PIECE = 4096, 2**15
#: Blocks of zstd that may be small, and the bytes that the others must have on average.
_FREE_BLOCKS, _MIN_BLOCK = 4096, 64


def media_type(header: str) -> str:
    """The media type of a content-type header, without its parameters."""
    return header.partition(";")[0].strip().lower()


def wants_msgpack(accept: str) -> bool:
    """Whether an Accept header prefers MessagePack: it must name it, and JSON wins a tie of the two.

    A range such as `*/*` takes JSON as well, but what is named goes before what is not.
    """
    if MSGPACK_TYPE not in accept:
        return False
    quality = qualities(accept)
    mine = quality.get(MSGPACK_TYPE, 0.0)
    if JSON_TYPE in quality:
        return mine > quality[JSON_TYPE]
    return mine > 0 and mine >= quality.get("application/*", quality.get("*/*", 0.0))


def prefers(accept: str, one: str, other: str) -> bool:
    """Whether an Accept header names one media type, and weighs it more than the other."""
    quality = qualities(accept)
    return quality.get(one, 0.0) > quality.get(other, 0.0)


def takes(accept_encoding: str, name: str) -> bool:
    """Whether an Accept-Encoding header names an encoding, or all there are, with a weight above 0."""
    quality = qualities(accept_encoding)
    return quality.get(name, quality.get("*", 0.0)) > 0


def encode_response(answer: BaseResponse, accept: str, *, short: bool = False) -> tuple[bytes, bytes]:
    """An answer as the Accept header asks for it, and its content type; one that is `short` in one go."""
    packed = wants_msgpack(accept)
    encode = encode_short if short else encode_document
    return encode(answer, packed=packed), content_type(packed=packed)


def content_type(*, packed: bool) -> bytes:
    """The content type of an answer."""
    return _MSGPACK if packed else _JSON


def compressed(content: bytes, accept_encoding: str) -> bytes | None:
    """A large answer compressed by zstd where the caller takes that; gzip would cost more than it saves."""
    if len(content) < MIN_COMPRESSED or qualities(accept_encoding).get("zstd", 0.0) <= 0:
        return None
    packed = zstandard.ZstdCompressor(level=1).compress(content)
    # Numbers as raw bytes hardly shrink: then the caller is spared the work.
    return packed if len(packed) < 0.9 * len(content) else None


def decompressor(encoding: str, limits: Limits) -> Callable[[bytes], bytes] | None:
    """The function that undoes a content encoding, within the limits on size and ratio; None for identity."""
    items = encoding.split(",", _MOST_ITEMS)  # what is beyond stays together, and is no encoding's name
    names = [name for item in items if (name := item.strip().lower()) not in ("", "identity")]
    if not names:
        return None
    name = ", ".join(names)
    if name not in ("gzip", "zstd"):
        raise UnsupportedMediaTypeError(
            f"Content encoding {name[:40]!r} is not supported; gzip and zstd are."
        )

    def decompress(content: bytes) -> bytes:
        bound = bound_of(content, limits)
        try:
            plain = _gunzip(content, bound) if name == "gzip" else _unzstd(content, bound)
        except (zlib.error, zstandard.ZstdError, EOFError):
            raise MalformedRequestError(f"The body is not valid {name}.") from None
        if len(plain) > bound:
            raise too_large(limits.max_body)
        return plain

    return decompress


def bound_of(content: bytes, limits: Limits) -> int:
    """Most bytes that a compressed body may become."""
    return min(limits.max_body, max(int(limits.max_ratio * len(content)), 4096))


def too_large(limit: int) -> RequestTooLargeError:
    """The refusal of a body over the limit."""
    return RequestTooLargeError(f"The body is larger than {limit} bytes.")


def _gunzip(content: bytes, bound: int) -> bytes:
    """The content of all members (RFC 1952), or more than `bound` bytes of it where there is more."""
    view, place, parts, left = memoryview(content), 0, list[bytes](), bound + 1
    for _ in range(_MOST_MEMBERS):
        member = zlib.decompressobj(wbits=31)
        while not member.eof:
            if place == len(view):
                raise EOFError
            # What is not used of a piece is copied: a little at a time, for members may be short.
            piece = view[place : place + _GZIP_PIECE]
            parts.append(member.decompress(piece, left))
            place += len(piece) - len(member.unconsumed_tail) - len(member.unused_data)
            left -= len(parts[-1])
            if left <= 0:
                return b"".join(parts)
        if place == len(view):
            return b"".join(parts)
    raise EOFError


def _unzstd(content: bytes, bound: int) -> bytes:
    """The content of all frames (RFC 8878), or more than `bound` bytes of it where there is more."""
    _check_frames(content)
    # The window that RFC 9659 lets senders use; a larger one is memory that a few bytes ask for.
    decompressor = zstandard.ZstdDecompressor(max_window_size=2**23)
    with decompressor.stream_reader(content, read_across_frames=True) as stream:
        parts: list[Any] = []
        left = bound + 1
        while left > 0 and (part := stream.read(min(left, 2**20))):
            parts.append(part)
            left -= len(part)
    return b"".join(parts)


def _check_frames(content: bytes) -> None:
    """Raise `EOFError` where the frames are not whole, or something else follows: the decoder would not say.

    Only lengths are looked at: of the parts of each frame's header, and of its blocks.
    """
    place, blocks = 0, _FREE_BLOCKS + len(content) // _MIN_BLOCK
    while place < len(content) or not place:
        magic, size = content[place : place + 4], int.from_bytes(content[place + 4 : place + 8], "little")
        if len(magic) == 4 and magic[0] & 0xF0 == 0x50 and magic[1:] == b"\x2a\x4d\x18":  # skipped
            place += 8 + size
            blocks -= 1
        elif magic == b"\x28\xb5\x2f\xfd" and len(content) > place + 4:
            told = content[place + 4]
            whole = told >> 5 & 1  # one segment: no size of a window, and that of the content in any case
            sizes = (whole, 2, 4, 8)[told >> 6], (0, 1, 2, 4)[told & 3]
            place += 6 - whole + sum(sizes)
            last = False
            while not last:
                head = int.from_bytes(content[place : place + 3], "little")
                last, kind = bool(head & 1), head >> 1 & 3
                place += 3 + (1 if kind == 1 else head >> 3)  # the second kind repeats one byte
                blocks -= 1
                if place > len(content) or blocks < 0:
                    raise EOFError
            place += 4 if told & 4 else 0
        else:
            raise EOFError
        if place > len(content) or blocks < 0:
            raise EOFError


def listed(header: str) -> list[str]:
    """The items of a list in a header, of very many the first."""
    return header.split(",", _MOST_ITEMS)[:_MOST_ITEMS]


def qualities(header: str) -> dict[str, float]:
    """Token → quality of an Accept-like header, from 0 to 1; 0 where it is no such number."""
    found: dict[str, float] = {}
    for item in listed(header):
        token, *parameters = (part.strip().lower() for part in item.split(";", _MOST_PARAMETERS))
        quality = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        found[token] = float(quality) if _QUALITY.fullmatch(quality) else 0.0
    return found
