"""Turns every error into a problem document (RFC 9457), and lets nothing else out of the app."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import MutableMapping
from typing import Any
from uuid import uuid4

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sheaf_client import ProblemError
from sheaf_client.errors import BY_CODE, InternalServerError

log = logging.getLogger("sheaf.http")

PROBLEM_TYPE = "application/problem+json"
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_BY_STATUS = {404: "not_found", 405: "method_not_allowed"}
#: On every answer that does not say otherwise. What is served here is data, save for the page at `/docs`.
_SECURITY = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)


def problem_response(error: ProblemError) -> Response:
    """The document with its status, and `Retry-After` in whole seconds where there is one."""
    headers: dict[str, str] = {}
    if error.retry_after is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after))
    if error.status == 401:
        headers["www-authenticate"] = 'Bearer realm="sheaf"'
    body = error.to_problem().model_dump_json(exclude_none=True)
    return Response(body, status_code=error.status, media_type=PROBLEM_TYPE, headers=headers)


def as_problem(error: Exception) -> ProblemError:
    """The error to tell the caller; what was not meant for them becomes an opaque `internal`."""
    if isinstance(error, ProblemError):
        return error
    if isinstance(error, HTTPException):
        return BY_CODE.get(_BY_STATUS.get(error.status_code, ""), InternalServerError)(error.detail)
    log.error("unexpected error", exc_info=error)
    return InternalServerError("The server failed; its log has more under this request's identifier.")


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's own refusals (no such route, wrong method) as problem documents."""
    problem = as_problem(error)
    problem.request_id = request.scope.get("sheaf.request_id")
    response = problem_response(problem)
    if isinstance(error, HTTPException) and error.headers:
        response.headers.update(error.headers)
    return response


class ProblemBoundary:
    """The layer around all routes: each request gets an identifier, each failure its problem document."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = header(scope, b"x-request-id")
        # The caller's identifier where it is printable and short, else one of our own.
        scope["sheaf.request_id"] = given if _REQUEST_ID.fullmatch(given) else str(uuid4())
        started = False

        async def send_on(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers: list[tuple[bytes, bytes]] = list(message["headers"])
                there = {name for name, _ in headers}
                headers += [header for header in _SECURITY if header[0] not in there]
                headers.append((b"x-request-id", scope["sheaf.request_id"].encode("ascii")))
                if "sheaf.caller" in scope:
                    headers += scope["sheaf.caller"].headers()
                message["headers"] = headers
            await send(message)

        try:
            await self._app(scope, receive, send_on)
        except Exception as error:
            if started:
                raise
            problem = as_problem(error)
            scope["sheaf.code"] = problem.code
            problem.request_id = scope["sheaf.request_id"]
            await problem_response(problem)(scope, receive, send_on)


def header(scope: MutableMapping[str, Any], name: bytes) -> str:
    """The first header of that lower-case name; empty where there is none."""
    for key, value in scope["headers"]:
        if key == name:
            text: str = value.decode("latin-1")
            return text
    return ""
