"""Turns every error into a problem document (RFC 9457), and lets nothing else out of the app."""

from __future__ import annotations

import logging
import math

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from sheaf.observability.context import CURRENT
from sheaf_client.errors import BY_CODE, InternalServerError, ProblemError

log = logging.getLogger("sheaf.http")

PROBLEM_TYPE = "application/problem+json"
_BY_STATUS = {404: "not_found", 405: "method_not_allowed"}


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


async def on_http_exception(request: Request, error: Exception) -> Response:  # noqa: ARG001 - what Starlette gives
    """Starlette's own refusals (no such route, wrong method) as problem documents."""
    problem, current = as_problem(error), CURRENT.get()
    problem.request_id = None if current is None else current.request_id
    response = problem_response(problem)
    if isinstance(error, HTTPException) and error.headers:
        response.headers.update(error.headers)
    return response
