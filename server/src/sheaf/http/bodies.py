"""Reads request bodies into contracts: size and type are checked before anything is decoded."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, TypeVar, cast

import anyio
import pydantic_core
from pydantic import ValidationError
from starlette.requests import Request

from sheaf_client._faults import invalid_request, pointer
from sheaf_client.contracts.base import BaseRequest
from sheaf_client.contracts.problem import Fault
from sheaf_client.errors import (
    InvalidRequestError,
    MalformedRequestError,
    RequestTooLargeError,
    UnsupportedMediaTypeError,
)

RequestT = TypeVar("RequestT", bound=BaseRequest)

#: Bodies over this many bytes are decoded on a worker thread, so that others are served meanwhile.
_OFFLOAD = 128 * 1024


async def read_body(request: Request, limit: int) -> bytes:
    """The body as sent, JSON by its content type and at most `limit` bytes long."""
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json":
        raise UnsupportedMediaTypeError(
            f"Send application/json, not {media[:80] or 'a body without a content type'}."
        )
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        raise UnsupportedMediaTypeError(
            f"Content encoding {encoding[:40]!r} is not supported; send the body as it is."
        )
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        chunks.append(chunk)
    return b"".join(chunks)


async def decode(body: bytes, kind: type[RequestT], model_name: str) -> RequestT:
    """The contract in a body; `model_name` stands for a missing one and must equal one that is given."""
    read = partial(decode_now, body, kind, model_name)
    return await anyio.to_thread.run_sync(read) if len(body) > _OFFLOAD else read()


def decode_now(body: bytes, kind: type[RequestT], model_name: str) -> RequestT:
    """`decode` without giving way."""
    try:
        request = kind.model_validate_json(body, strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        content = parse(body)
        if not isinstance(content, dict) or "model_name" in content:
            raise invalid_request(error, content, _request_id_in(content)) from None
        content["model_name"] = model_name
        try:
            return kind.model_validate_json(
                pydantic_core.to_json(content), strict=True, by_alias=True, by_name=False
            )
        except ValidationError as second:
            raise invalid_request(second, content, _request_id_in(content)) from None
    if request.model_name != model_name:
        fault = Fault(code="mismatch", path="/model_name", message=f"The URL names {model_name}.")
        raise InvalidRequestError("The body names another model than the URL.", errors=[fault])
    return request


def parse(body: bytes) -> Any:
    """The JSON value of a body; raises `MalformedRequestError` with line and column."""
    try:
        return pydantic_core.from_json(body)
    except ValueError as error:
        raise MalformedRequestError(f"The body is not valid JSON: {error}.") from None


def parse_batch(body: bytes, limit: int = 1024) -> Sequence[Any]:
    """The items of `{"requests": […]}`, not yet decoded."""
    content = _members(parse(body))
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


def _too_large(limit: int) -> RequestTooLargeError:
    return RequestTooLargeError(f"The body is larger than {limit} bytes.")
