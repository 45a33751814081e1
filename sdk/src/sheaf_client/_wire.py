"""Types whose form on the wire differs from their form in Python."""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Annotated, Any, TypeAlias

from pydantic import (
    BeforeValidator,
    PlainSerializer,
    SerializationInfo,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
)
from pydantic_core import PydanticCustomError

from sheaf_client._context import WIRE

_ISO = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?(Z|[+-]\d{2}:\d{2})?)?")


def _read_time(value: Any) -> Any:
    """Accept what a schema's timestamp may be, and Python's own datetimes and dates; never a bare number."""
    if isinstance(value, datetime):
        # A pandas Timestamp is a datetime too: its own arithmetic must not leak into the contract.
        return value if type(value) is datetime else datetime.fromisoformat(value.isoformat()[:32])
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day)
    if isinstance(value, str) and _ISO.fullmatch(value):
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            pass
    raise PydanticCustomError("bad_format", "Must be an ISO 8601 date or date-time.")


def _write_time(value: datetime, info: SerializationInfo) -> Any:
    wanted = info.mode == "json" or (info.context and info.context.get(WIRE))
    return value.isoformat() if wanted else value


Timestamp: TypeAlias = Annotated[
    datetime,
    BeforeValidator(_read_time),
    PlainSerializer(_write_time),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""A date-time with or without an offset; ISO 8601 on the wire."""


def _read_existing(value: Any, read: ValidatorFunctionWrapHandler) -> str:
    """Accept text of `read` that names a day that exists, and Python's own datetimes and dates."""
    text: str = read(value.isoformat() if isinstance(value, date) else value)
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise PydanticCustomError("bad_format", "No such day or time.") from None
    return text


existing_time = WrapValidator(_read_existing)
"""The check of text that is a date or date-time."""

IsoTimeLike: TypeAlias = datetime | date | str
"""What a caller may give for an `IsoTime`: a datetime (pandas' own too), a date, or ISO 8601 text."""

TimestampLike: TypeAlias = datetime | date | str
"""What a caller may give for a `Timestamp`: a datetime (pandas' own too), a date, or ISO 8601 text."""
