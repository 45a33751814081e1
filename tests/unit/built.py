"""Requests as the client builds them of keywords and of whole objects."""

from __future__ import annotations

from typing import Any

from sheaf_client._inputs import expand
from sheaf_client._operation import Operation
from sheaf_client._resource import build_request


def build(operation: Operation[Any, Any], **fields: Any) -> Any:
    return build_request(operation, "m", fields)


def taken(operation: Operation[Any, Any], whole: object, **fields: Any) -> Any:
    return build_request(operation, "m", {**expand(operation.request, whole, fields), **fields})
