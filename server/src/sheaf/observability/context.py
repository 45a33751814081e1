"""The HTTP request that is being answered, known to all that happens on its behalf: logs, metrics, spans."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING
from uuid import uuid4

if TYPE_CHECKING:
    from opentelemetry.trace import Span


class CurrentRequest:
    """One request on its way.

    Attributes:
        headers: Names, in lower case, and values as they came.
        model: Name of the model, of those that are there; empty for any other.
        route: Name of the route, of those that are there; `other` for any other.
        span: The request's own span, where traces are kept.
        calls: Requests that the engine has taken on its behalf; a batch has several.
        failed: Status of the problem that ended a stream after its beginning was sent.
    """

    __slots__ = ("_request_id", "calls", "failed", "headers", "model", "route", "span")

    def __init__(
        self,
        request_id: str | None = None,
        *,
        headers: Sequence[tuple[bytes, bytes]] = (),
        model: str = "",
        route: str = "other",
    ) -> None:
        self._request_id = request_id
        self.headers = headers
        self.model = model
        self.route = route
        self.span: Span | None = None
        self.calls = 0
        self.failed: int | None = None

    @property
    def request_id(self) -> str:
        """Its caller's identifier, else its contract's, else one of our own, made when it is asked for."""
        if self._request_id is None:
            self._request_id = str(uuid4())
        return self._request_id


#: The request that this code runs for.
CURRENT: ContextVar[CurrentRequest | None] = ContextVar("sheaf_request", default=None)
