"""Answers that are not what was asked for: problems, pages of proxies, redirects."""

from __future__ import annotations

from typing import ClassVar

import httpx
from pydantic import ValidationError

from sheaf_client._arguments import without_secrets
from sheaf_client._bodies import header
from sheaf_client._msgpack import MSGPACK_TYPE
from sheaf_client._printable import printable
from sheaf_client._retry import retry_after
from sheaf_client.contracts.problem import Problem
from sheaf_client.errors import BadResponseError, ProblemError

JSON_TYPE = "application/json"
EVENT_STREAM = "text/event-stream"

_PAGE = "HTTP {} from something that is not Sheaf."


class BadGatewayError(ProblemError):
    """A proxy reached no server (502); the 502 of the schema's table is of a server that was reached."""

    code: ClassVar[str] = "http_502"
    status: ClassVar[int] = 502
    title: ClassVar[str] = "Bad gateway"


def is_stream(response: httpx.Response) -> bool:
    """Whether the body is to be handed on as it comes; what says nothing of itself may be events."""
    return response.is_success and media_of(response) in ("", EVENT_STREAM)


def media_of(response: httpx.Response) -> str:
    return header(response, b"content-type").split(";", 1)[0].strip().lower()


def named(response: httpx.Response) -> str:
    """What an answer says that it is, where that is not what was asked for: most often a proxy's page."""
    media = media_of(response)
    return "" if media in ("", JSON_TYPE, MSGPACK_TYPE, EVENT_STREAM) else f", but {printable(media, 100)}"


def raise_for_problem(response: httpx.Response) -> None:
    """Raise the error of an answer that is not a success."""
    if response.is_success:
        return
    status = response.status_code
    if not 400 <= status <= 599:
        raise BadResponseError(_no_answer(response))
    try:
        error = ProblemError.from_problem(Problem.model_validate_json(response.content))
    except ValidationError:
        # A proxy in between has its own idea of an error page: keep the status, drop the page.
        page = Problem(
            type="about:blank", title="", status=status, code=f"http_{status}", detail=_PAGE.format(status)
        )
        bad_gateway = status == BadGatewayError.status
        error = BadGatewayError(page.detail) if bad_gateway else ProblemError.from_problem(page)
    if error.retry_after is None:
        error.retry_after = retry_after(response.headers.get("retry-after", ""))
    if error.request_id is None:
        error.request_id = response.headers.get("x-request-id")
    raise error


def _no_answer(response: httpx.Response) -> str:
    text = f"HTTP {response.status_code} is no answer to a call"
    location = response.headers.get("location")
    if not location or not 300 <= response.status_code <= 399:
        return f"{text}."
    return (
        f"{text}: it leads to {printable(without_secrets(location), 200)}. Redirects are not followed, so "
        "that keys and data go to no other server; `base_url` says where the server is."
    )
