"""Decodes requests of HTTP, batch jobs and queue workers: JSON text or a plain value into the contract.

The URL or the job names the model, so what a request says of that is a label: it may be absent, and is
replaced by the name that the model has here. A host that needs an identifier of every request gives one,
which is filled in where it is absent.
"""

from __future__ import annotations

from typing import Any, TypeVar, cast
from uuid import UUID

import pydantic_core
from pydantic import ValidationError

from sheaf.contract.operations import operations_of
from sheaf_client.contracts.base import BaseRequest
from sheaf_client.errors import MalformedRequestError
from sheaf_client.protocol import invalid_request, read_text, unpack, validate_unpacked

RequestT = TypeVar("RequestT", bound=BaseRequest)

#: Longest text that a refusal repeats as the identifier of a request.
_LONGEST_ID = 64
#: White space of JSON.
_SPACE = b" \t\n\r"


def decode_line(content: bytes, model_type: str, model_name: str, request_id: UUID) -> BaseRequest:
    """The request in a line of JSON, of the operation that it names.

    Raises:
        MalformedRequestError: The bytes are not JSON.
        InvalidRequestError: The contract does not allow it.
    """
    operations = operations_of(model_type)
    asked = operations.only or operations.asked_for(parse(content))
    kind: type[BaseRequest] = asked.request
    request = decode_text(content, kind, model_name, request_id)
    return decode_value(parse(content), kind, model_name, request_id) if request is None else request


def decode_text(
    content: bytes, kind: type[RequestT], model_name: str, request_id: UUID | None = None
) -> RequestT | None:
    """The request in JSON text, in one pass; None where that does not do, for whatever reason.

    `decode_value` then tells what is wrong, by its place.
    """
    content = content.lstrip(_SPACE)
    # What is named nowhere in the text is put in front; names of models need no quoting.
    if b'"model_name"' not in content and content.startswith(b"{"):
        content = b'{"model_name":"%b",%b' % (model_name.encode("ascii"), content[1:])
    if request_id is not None and b'"request_id"' not in content and content.startswith(b"{"):
        content = b'{"request_id":"%b",%b' % (str(request_id).encode("ascii"), content[1:])
    request = read_text(kind, content)
    if request is None or (request_id is None and request.model_name == model_name):
        return request
    return _labelled(request, model_name, request_id)


def decode_value(
    value: Any, kind: type[RequestT], model_name: str, request_id: UUID | None = None
) -> RequestT:
    """The request in a value of JSON or MessagePack, such as an item of a batch.

    Raises `InvalidRequestError` with the place of each fault.
    """
    content: Any = value
    if isinstance(value, dict):
        members = cast("dict[str, Any]", value)
        content = members if request_id is None else {"request_id": str(request_id), **members}
        if isinstance(members.get("model_name", ""), str):
            content = {**content, "model_name": model_name}
    try:
        request = validate_unpacked(kind, content, strict=True, by_name=False)
    except ValidationError as error:
        raise invalid_request(error, content, _identifier(content, request_id)) from None
    return _labelled(request, model_name, request_id)


def parse(content: bytes, *, packed: bool = False, what: str = "This") -> Any:
    """The value of JSON or MessagePack; raises `MalformedRequestError` with the place of what is wrong."""
    try:
        return unpack(content) if packed else pydantic_core.from_json(content)
    except ValueError as error:
        name = "MessagePack" if packed else "JSON"
        raise MalformedRequestError(f"{what} is not valid {name}: {error}.") from None


def _labelled(request: RequestT, model_name: str, request_id: UUID | None) -> RequestT:
    """The request with the model's name here, and with the identifier where it has none of its own."""
    given: dict[str, Any] = {}
    if request.model_name != model_name:
        given["model_name"] = model_name
    if request_id is not None and "request_id" not in request.model_fields_set:
        given["request_id"] = request_id
    return request.model_copy(update=given) if given else request


def _identifier(content: Any, request_id: UUID | None) -> str | None:
    """What a refusal calls its request: its own identifier, or the given one where its own is none."""
    given = cast("dict[str, Any]", content).get("request_id") if isinstance(content, dict) else None
    if request_id is None:
        return given if isinstance(given, str) and len(given) <= _LONGEST_ID else None
    return given if _is_uuid(given) else str(request_id)


def _is_uuid(value: Any) -> bool:
    try:
        UUID(value)
    except (ValueError, TypeError, AttributeError):
        return False
    return True
