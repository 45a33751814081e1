"""A request as a line of JSON and its outcome as another: what batch jobs and queue workers share."""

from __future__ import annotations

from typing import Any, cast
from uuid import UUID

import pydantic_core
from pydantic import ValidationError

from sheaf.spec import ModelSpec
from sheaf_client import ProblemError
from sheaf_client._binary import validate_unpacked
from sheaf_client._bounded import read_text
from sheaf_client._faults import invalid_request
from sheaf_client._operation import Operation
from sheaf_client.contracts.base import BaseRequest, BaseResponse
from sheaf_client.errors import BackendError, MalformedRequestError


def contract_of(model_type: str, value: Any) -> Operation[Any, Any]:
    """The operation that a request or a response is of; raises `InvalidRequestError` where there is none."""
    from sheaf.http.operations import operations_of

    return operations_of(model_type).asked_for(value)


def _kind(model_type: str, content: bytes) -> type[BaseRequest]:
    """The contract of the request in a line of JSON, which is read for it where there are several."""
    from sheaf.http.operations import operations_of

    operations = operations_of(model_type)
    kind: type[BaseRequest] = (operations.only or operations.asked_for(parse(content))).request
    return kind


def _completed(content: bytes, **members: object) -> bytes:
    """The text of a JSON object with members that it does not name anywhere; their values need no quoting."""
    if not content.startswith(b"{"):
        return content
    added = [f'"{name}":"{value}",' for name, value in members.items() if f'"{name}"'.encode() not in content]
    return b"".join((b"{", "".join(added).encode("ascii"), content[1:])) if added else content


def read_request(content: bytes, spec: ModelSpec, request_id: UUID) -> BaseRequest:
    """The request in a line of JSON, with the name that the model has here: the line's own is a label.

    `request_id` is filled in where it is absent.

    Raises:
        MalformedRequestError: The bytes are not JSON.
        InvalidRequestError: The contract does not allow it.
    """
    kind = _kind(spec.model_type, content)
    request = read_text(kind, _completed(content, model_name=spec.name, request_id=request_id))
    if request is None:
        # The slow path tells of faults by their place.
        request = _read_value(parse(content), kind, spec.name, request_id)
    given: dict[str, Any] = {}
    if request.model_name != spec.name:
        given["model_name"] = spec.name
    if "request_id" not in request.model_fields_set:
        given["request_id"] = request_id
    return request.model_copy(update=given) if given else request


def parse(content: bytes) -> Any:
    """The value of a line of JSON; raises `MalformedRequestError` with the place."""
    try:
        return pydantic_core.from_json(content)
    except ValueError as error:
        raise MalformedRequestError(f"This is not valid JSON: {error}.") from None


def _read_value(value: Any, kind: type[BaseRequest], model_name: str, request_id: UUID) -> BaseRequest:
    content: Any = value
    if isinstance(value, dict):
        content = {"model_name": model_name, "request_id": str(request_id), **cast("dict[str, Any]", value)}
        if isinstance(content["model_name"], str):
            content["model_name"] = model_name
        given = content["request_id"]
    else:
        given = None
    try:
        return validate_unpacked(kind, content, strict=True, by_name=False)
    except ValidationError as error:
        raise invalid_request(error, content, given if _is_uuid(given) else str(request_id)) from None


def _is_uuid(value: Any) -> bool:
    try:
        UUID(value)
    except (ValueError, TypeError, AttributeError):
        return False
    return True


def outcome_members(outcome: BaseResponse | BaseException) -> bytes:
    """`"response": {…}` or `"problem": {…}` as JSON text, to be put between the braces of a line.

    What is no `ProblemError` becomes an opaque `backend_failed`: its text may tell of the inside. Raises
    `ValueError` for a response that JSON cannot hold.
    """
    if isinstance(outcome, BaseResponse):
        return b'"response":' + outcome.model_dump_json().encode()
    if not isinstance(outcome, ProblemError):
        outcome = BackendError("The model failed on this request.")
    return b'"problem":' + outcome.to_problem().model_dump_json(exclude_none=True).encode()
