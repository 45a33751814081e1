"""Logs for machines: with `SHEAF_LOG_JSON=1` one JSON object a line, in UTC, with the request it belongs to.

No line holds a body, a header or a query: what a request brought with it stays out of the log.
"""

from __future__ import annotations

import logging
import os
import re
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec
from pydantic import ValidationError

from sheaf.environment import switched_on
from sheaf.observability.context import CURRENT, CurrentRequest
from sheaf.observability.tracing import current_ids

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
#: What a server says of itself, and what serves it.
_OWN = ("sheaf", "uvicorn")
#: What a line of ours may add besides, by `extra=`.
_EXTRA = ("request_id", "model", "route", "status", "outcome", "seconds")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}.*")
_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class JSONFormatter(logging.Formatter):
    """A record as one JSON object: time, level, logger, message, and what is known of the request."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds")
        line: dict[str, Any] = {
            "time": moment.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        current = CURRENT.get()
        if current is not None:
            line |= {"request_id": current.request_id, "model": current.model or None, "route": current.route}
        line |= {name: getattr(record, name) for name in _EXTRA if hasattr(record, name)}
        ids = current_ids() or _ids_sent(current)
        if ids is not None:
            line["trace_id"], line["span_id"] = ids
        if record.exc_info and record.exc_info[1] is not None:
            line["exception"] = "".join(_described(record.exc_info[1]))
        if record.stack_info:
            line["stack"] = record.stack_info
        known = {name: value for name, value in line.items() if value is not None}
        return msgspec.json.encode(known, enc_hook=str).decode()


def configure_logging(*, default: str | None = None, whole_process: bool = False) -> None:
    """Write logs to standard error as `SHEAF_LOG` (a level) and `SHEAF_LOG_JSON` ask.

    Without either nothing changes, unless `default` names a level. Called again, it replaces what it set.

    Args:
        default: Level where `SHEAF_LOG` names none.
        whole_process: The process is a server's own: all that is logged in it is written, by every library.
    """
    in_json = switched_on("SHEAF_LOG_JSON")
    level = os.environ.get("SHEAF_LOG", "").strip().lower()
    if level not in LEVELS:
        level = default or ("info" if in_json else "")
    if not level:
        return
    handler = _Handler()
    handler.setFormatter(JSONFormatter() if in_json else logging.Formatter(_TEXT))
    logging.getLogger("sheaf").setLevel(LEVELS[level])
    if whole_process:
        logging.getLogger().setLevel(max(logging.INFO, LEVELS[level]))
    for logger in [logging.getLogger()] if whole_process else map(logging.getLogger, _OWN):
        for old in [old for old in logger.handlers if isinstance(old, _Handler)]:
            logger.removeHandler(old)
        logger.addHandler(handler)
        logger.propagate = False


class _Handler(logging.StreamHandler[TextIO]):
    """Writes to standard error; a class of its own, so that it is known again."""


def _ids_sent(current: CurrentRequest | None) -> tuple[str, str] | None:
    """The caller's trace where this process keeps none, so that its lines can still be found by it."""
    if current is None:
        return None
    for name, value in current.headers:
        if name == b"traceparent":
            found = _TRACEPARENT.fullmatch(value.decode("latin-1"))
            return (found[1], found[2]) if found else None
    return None


def _described(error: BaseException) -> Iterator[str]:
    """The traceback of an error and of its causes, without the values that a validation error repeats."""
    inner = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if inner is not None:
        yield from _described(inner)
        yield "\nThat led to:\n\n"
    yield "Traceback (most recent call last):\n"
    yield from traceback.format_tb(error.__traceback__)
    if isinstance(error, ValidationError):
        yield f"{type(error).__name__}: {error.error_count()} faults in {error.title}\n"
        for fault in error.errors(include_input=False, include_url=False, include_context=False):
            yield f"  {'.'.join(map(str, fault['loc']))}: {fault['msg']}\n"
    else:
        yield from traceback.format_exception_only(error)
