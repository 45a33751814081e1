"""How bodies are encoded: content types, what the caller accepts, and compression with a cap on its ratio."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from typing import Any

import zstandard

from sheaf.http.limits import Limits
from sheaf_client._base import Model
from sheaf_client._binary import MSGPACK_TYPE, pack
from sheaf_client.contracts.base import BaseResponse
from sheaf_client.errors import MalformedRequestError, RequestTooLargeError, UnsupportedMediaTypeError

JSON_TYPE = "application/json"
_JSON, _MSGPACK = JSON_TYPE.encode(), MSGPACK_TYPE.encode()
_QUALITY = re.compile(r"0(\.\d*)?|\.\d+|1(\.0*)?")
#: Answers smaller than this are not worth compressing.
MIN_COMPRESSED = 16 * 1024


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


def encode_response(answer: BaseResponse, accept: str) -> tuple[bytes, bytes]:
    """An answer as the Accept header asks for it, and its content type."""
    packed = wants_msgpack(accept)
    return encode_document(answer, packed=packed), content_type(packed=packed)


def encode_document(document: Model, *, packed: bool) -> bytes:
    """An answer or a problem as MessagePack or JSON."""
    # `model_dump_json` as bytes, without the text between.
    return pack(document) if packed else document.__pydantic_serializer__.to_json(document)


def content_type(*, packed: bool) -> bytes:
    """The content type of an answer."""
    return _MSGPACK if packed else _JSON


def takes_zstd(accept_encoding: str) -> bool:
    """Whether the caller takes answers that are compressed by zstd."""
    return qualities(accept_encoding).get("zstd", 0.0) > 0


def compressed(content: bytes, accept_encoding: str) -> bytes | None:
    """A large answer compressed by zstd where the caller takes that; gzip would cost more than it saves."""
    if len(content) < MIN_COMPRESSED or not takes_zstd(accept_encoding):
        return None
    packed = zstandard.ZstdCompressor(level=1).compress(content)
    # Numbers as raw bytes hardly shrink: then the caller is spared the work.
    return packed if len(packed) < 0.9 * len(content) else None


def decompressor(encoding: str, limits: Limits) -> Callable[[bytes], bytes] | None:
    """The function that undoes a content encoding, within the limits on size and ratio; None for identity."""
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return None
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
    stream = zlib.decompressobj(wbits=31)
    plain = stream.decompress(content, bound + 1)
    if len(plain) <= bound and not stream.eof:
        raise EOFError
    return plain


def _unzstd(content: bytes, bound: int) -> bytes:
    # The window that RFC 9659 lets senders use; a larger one is memory that a few bytes ask for.
    with zstandard.ZstdDecompressor(max_window_size=2**23).stream_reader(content) as stream:
        parts: list[Any] = []
        left = bound + 1
        while left > 0 and (part := stream.read(min(left, 2**20))):
            parts.append(part)
            left -= len(part)
        if left > 0 and not content:
            raise EOFError
    return b"".join(parts)


def qualities(header: str) -> dict[str, float]:
    """Token → quality of an Accept-like header, from 0 to 1; 0 where it is no such number."""
    found: dict[str, float] = {}
    for item in header.split(","):
        token, *parameters = (part.strip().lower() for part in item.split(";"))
        quality = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        found[token] = float(quality) if _QUALITY.fullmatch(quality) else 0.0
    return found
