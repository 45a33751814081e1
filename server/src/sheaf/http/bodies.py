"""Reads request bodies into contracts: size and type are checked before anything is decoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

import anyio
import pydantic_core
from pydantic import ValidationError
from starlette.requests import Request

from sheaf.http.encodings import JSON_TYPE, decompressor, media_type, too_large
from sheaf_client._binary import MSGPACK_TYPE, unpack, validate_unpacked
from sheaf_client._faults import invalid_request, pointer
from sheaf_client.contracts.base import BaseRequest
from sheaf_client.contracts.problem import Fault
from sheaf_client.errors import (
    InvalidRequestError,
    MalformedRequestError,
    UnsupportedMediaTypeError,
)

T = TypeVar("T")
RequestT = TypeVar("RequestT", bound=BaseRequest)

#: Bodies and events over this many bytes are read and written on a worker thread, so that others are served.
OFFLOAD = 128 * 1024


@dataclass(frozen=True)
class Body:
    """A request body, decompressed: JSON, or MessagePack with tensors and media as raw bytes."""

    content: bytes
    packed: bool

    def read(self, kind: type[RequestT]) -> RequestT:
        """The contract in the body; raises `ValidationError`, or `MalformedRequestError` for broken bytes."""
        if self.packed:
            return _from_value(kind, self.parse())
        return kind.model_validate_json(self.content, strict=True, by_alias=True, by_name=False)

    def parse(self) -> Any:
        """The plain value of the body; raises `MalformedRequestError` with the place."""
        try:
            return unpack(self.content) if self.packed else pydantic_core.from_json(self.content)
        except ValueError as error:
            name = "MessagePack" if self.packed else "JSON"
            raise MalformedRequestError(f"The body is not valid {name}: {error}.") from None


async def read_body(request: Request, limit: int) -> Body:
    """The body, by its content type, at most `limit` bytes long as sent and when decompressed."""
    media = media_type(request.headers.get("content-type", ""))
    if media not in (JSON_TYPE, MSGPACK_TYPE):
        raise UnsupportedMediaTypeError(
            f"Send {JSON_TYPE} or {MSGPACK_TYPE}, not {media[:80] or 'a body without a content type'}."
        )
    decompress = decompressor(request.headers.get("content-encoding", "identity"), limit)
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise too_large(limit)
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise too_large(limit)
        chunks.append(chunk)
    content = b"".join(chunks)
    if decompress is not None:
        content = await anyio.to_thread.run_sync(decompress, content)
    return Body(content, media == MSGPACK_TYPE)


async def decode(body: Body, kind: type[RequestT], model_name: str) -> RequestT:
    """The contract in a body; `model_name` stands for a missing one and must equal one that is given."""
    return await _run(body, partial(_decode, body, kind, model_name))


async def parsed(body: Body) -> Any:
    """The plain value of a body; raises `MalformedRequestError` with the place."""
    return await _run(body, body.parse)


async def _run(body: Body, read: Callable[[], T]) -> T:
    return await anyio.to_thread.run_sync(read) if len(body.content) > OFFLOAD else read()


def _decode(body: Body, kind: type[RequestT], model_name: str) -> RequestT:
    try:
        return _named(body.read(kind), model_name)
    except ValidationError:
        # The slow path tells every fault by its place, and lets the URL stand for a missing model_name.
        return decode_value(body.parse(), kind, model_name)


def decode_value(value: Any, kind: type[RequestT], model_name: str) -> RequestT:
    """`decode` for one item of a batch, already parsed."""
    content: Any = value
    if isinstance(value, dict) and "model_name" not in value:
        content = {**cast("dict[str, Any]", value), "model_name": model_name}
    try:
        return _named(_from_value(kind, content), model_name)
    except ValidationError as error:
        raise invalid_request(error, content, _request_id_in(content)) from None


def _from_value(kind: type[RequestT], value: Any) -> RequestT:
    return validate_unpacked(kind, value, strict=True, by_name=False)


def _named(request: RequestT, model_name: str) -> RequestT:
    if request.model_name != model_name:
        fault = Fault(code="mismatch", path="/model_name", message=f"The URL names {model_name}.")
        raise InvalidRequestError("The body names another model than the URL.", errors=[fault])
    return request


def parse_batch(body: Body, limit: int = 1024) -> Sequence[Any]:
    """The items of `{"requests": […]}`, not yet decoded."""
    content = _members(body.parse())
    items = content.get("requests")
    if not isinstance(items, list):
        fault = Fault(
            code="wrong_type" if items is not None else "missing",
            path="/requests",
            message="Must be an array.",
        )
        raise InvalidRequestError("A batch is an object with `requests`.", errors=[fault])
    if unknown := sorted(set(content) - {"requests"}):
        fault = Fault(
            code="unknown_field", path=pointer(unknown[:1]), message="A batch has `requests` alone."
        )
        raise InvalidRequestError("A batch is an object with `requests`.", errors=[fault])
    requests = cast("Sequence[Any]", items)
    if not 1 <= len(requests) <= limit:
        code = "too_long" if requests else "too_short"
        fault = Fault(code=code, path="/requests", message=f"Must have 1 to {limit} items.")
        raise InvalidRequestError("The batch is empty or too long.", errors=[fault])
    return requests


def _members(content: Any) -> dict[str, Any]:
    """The members of a JSON object; none of anything else."""
    return cast("dict[str, Any]", content) if isinstance(content, dict) else {}


def _request_id_in(content: Any) -> str | None:
    given = _members(content).get("request_id")
    return given if isinstance(given, str) and len(given) <= 64 else None
