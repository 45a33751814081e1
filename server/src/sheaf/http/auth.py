"""Lets in who may come in: a key for everything but what is open, and a caller for what follows.

It stands before the routes, so a route that somebody adds is closed until it is named here.
"""

from __future__ import annotations

from sheaf.http.callers import Caller
from sheaf.http.exchange import Exchange
from sheaf.http.keys import Access
from sheaf.http.quotas import Account, open_accounts
from sheaf_client.errors import AuthenticationError, NotFoundError, PermissionDeniedError

#: What shows the documentation, besides what is below `/docs`.
_DOCS = ("/", "/openapi.json", "/openapi-3.2.json")


class Authentication:
    """Finds out who sends a request, and refuses who may not."""

    def __init__(self, access: Access) -> None:
        self._access = access
        accounts = open_accounts(access.keys)
        self._callers = {key.name: Caller(key.max_priority, accounts[key.name]) for key in access.keys}
        self._anybody = Caller(max_priority=access.max_priority)

    def authenticate(self, exchange: Exchange) -> Account | None:
        """Name the caller of an exchange, or raise. An account that is returned is to `end` the call."""
        path = exchange.path
        if path.startswith("/admin") and path[6:7] in ("", "/"):
            self._check_admin(_secret(exchange))
        elif self._access.keys and not self._is_open(exchange.method, path):
            caller = exchange.caller = self._find(_secret(exchange))
            return self._count(caller.account, exchange)
        exchange.caller = self._anybody
        return None

    def _count(self, account: Account | None, exchange: Exchange) -> Account | None:
        assert account is not None  # noqa: S101 - `_find` gives callers with keys alone
        account.take()
        if exchange.method != "POST":
            return None
        account.begin()
        return account

    def _is_open(self, method: str, path: str) -> bool:
        if method not in ("GET", "HEAD"):
            return False
        access = self._access
        top, _, rest = path[1:].partition("/")
        if rest in ("health", "ready"):
            return True
        return (
            (access.open_metrics and path == "/metrics")
            or (access.open_models and path == "/models")
            or (access.open_docs and (top == "docs" or path in _DOCS))
        )

    def _find(self, secret: str) -> Caller:
        key = self._access.find(secret) if secret else None
        if key is None:
            if secret and self._access.is_admin(secret):
                raise PermissionDeniedError("The admin's key is for /admin alone.")
            raise _unauthenticated(secret)
        return self._callers[key.name]

    def _check_admin(self, secret: str) -> None:
        access = self._access
        if access.admin is not None and secret and access.is_admin(secret):
            return
        known = bool(secret) and access.find(secret) is not None
        if access.admin is None and (known or not access.keys):
            raise NotFoundError("There is no such route.")
        if known:
            raise PermissionDeniedError("This key may not change models.")
        raise _unauthenticated(secret)


def _secret(exchange: Exchange) -> str:
    """The key that a request carries; empty where there is none."""
    scheme, _, token = exchange.header(b"authorization").partition(" ")
    if scheme.lower() == "bearer" and token:
        return token.strip()
    return exchange.header(b"x-api-key").strip()


def _unauthenticated(secret: str) -> AuthenticationError:
    if secret:
        return AuthenticationError("The API key is not known here.")
    return AuthenticationError("Send an API key: `Authorization: Bearer …` or `X-API-Key`.")
