"""Answers a browser that asks, before a page's call to another origin, whether the page may send it."""

from __future__ import annotations

from collections.abc import Awaitable

from starlette.responses import Response

from sheaf.http.exchange import Exchange
from sheaf_client.errors import PermissionDeniedError

_METHODS = "GET, POST"
#: Seconds for which a browser need not ask again.
_REMEMBERED = "600"


def is_preflight(exchange: Exchange) -> bool:
    """Whether this is such a question; it never carries a key."""
    return exchange.method == "OPTIONS" and bool(
        exchange.header(b"origin") and exchange.header(b"access-control-request-method")
    )


def answer_preflight(exchange: Exchange) -> Awaitable[None]:
    """Begin to say what the page may send; raises `PermissionDeniedError` for pages that may not call."""
    exchange.route = "preflight"
    if not exchange.head.cross:
        raise PermissionDeniedError(
            "Pages of this origin may not call this server: it names those that may by `limits.origins` or "
            "`--allow-origin`."
        )
    headers = {"access-control-allow-methods": _METHODS, "access-control-max-age": _REMEMBERED}
    if asked := exchange.header(b"access-control-request-headers"):
        # All of them by name: `*` would not cover the one that carries the key.
        headers |= {"access-control-allow-headers": asked, "vary": "access-control-request-headers"}
    return Response(headers=headers)(exchange.scope, exchange.receive, exchange.send)
