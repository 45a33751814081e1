"""The HTTP request that is being answered, known to all that happens on its behalf: logs, metrics, spans."""

from __future__ import annotations

from collections.abc import MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.trace import Span


@dataclass(slots=True, eq=False)
class CurrentRequest:
    """One request on its way.

    Attributes:
        facts: Where the host keeps `sheaf.request_id`, `sheaf.model` and `sheaf.route`; an ASGI scope.
        span: The request's own span, where traces are kept.
        calls: Requests that the engine has taken on its behalf; a batch has several.
        failed: Status of the problem that ended a stream after its beginning was sent.
    """

    facts: MutableMapping[str, Any]
    span: Span | None = None
    calls: int = 0
    failed: int | None = None

    @property
    def request_id(self) -> str | None:
        return self.facts.get("sheaf.request_id")

    @property
    def model(self) -> str:
        """Name of the model, of those that are there; empty for any other."""
        return str(self.facts.get("sheaf.model", ""))

    @property
    def route(self) -> str:
        """Name of the route, of those that are there; `other` for any other."""
        return str(self.facts.get("sheaf.route", "other"))


#: The request that this code runs for.
CURRENT: ContextVar[CurrentRequest | None] = ContextVar("sheaf_request", default=None)
