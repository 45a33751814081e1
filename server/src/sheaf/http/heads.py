"""What the heads of all answers have in common: headers that browsers keep to, and which pages may read it.

The lines are there in both forms, as pairs for ASGI and as bytes for answers that go past it, so that no way
of answering leaves one out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias
from urllib.parse import urlsplit

Headers: TypeAlias = list[tuple[bytes, bytes]]

#: On every answer that does not say otherwise. What is served here is data, save for the page at `/docs`.
_SECURITY = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)
#: What an answer of a contract depends on.
_VARY = b"accept, accept-encoding"
_EXPOSED = b"x-request-id, retry-after, ratelimit, ratelimit-policy"
#: Any page may read the answers.
ANY = "*"
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Head:
    """What answers to one kind of caller have in common.

    Attributes:
        cross: Headers by which a browser lets the page of another origin read the answer.
        varies: Whether answers depend on the caller's origin.
    """

    cross: tuple[tuple[bytes, bytes], ...] = ()
    varies: bool = False

    @cached_property
    def headers(self) -> Headers:
        """Of an answer of status 200 to a call."""
        vary = _VARY + b", origin" if self.varies else _VARY
        return [(b"vary", vary), *_SECURITY, *self.cross]

    @cached_property
    def lines(self) -> bytes:
        """The same as it goes over the wire."""
        return b"".join(b"%b: %b\r\n" % header for header in self.headers)

    def complete(self, headers: Headers) -> Headers:
        """The headers of any answer with those that they lack."""
        there = {name for name, _ in headers}
        headers = [*headers, *(header for header in _SECURITY if header[0] not in there), *self.cross]
        if not self.varies:
            return headers
        vary = b", ".join([*(value for name, value in headers if name == b"vary"), b"origin"])
        return [*(header for header in headers if header[0] != b"vary"), (b"vary", vary)]


#: Of a server that lets no pages of other origins call it.
PLAIN = Head()


class Origins:
    """The origins whose pages may call a server, as `as_origin` gives them."""

    def __init__(self, allowed: Sequence[str]) -> None:
        any_page = ANY in allowed
        self._any = _letting(b"*", varies=False) if any_page else None
        self._known = {} if any_page else {o.encode(): _letting(o.encode(), varies=True) for o in allowed}
        self._others = Head(varies=True) if allowed else PLAIN

    def head(self, origin: bytes | None) -> Head:
        """What answers to a request have in common, by its `Origin`."""
        if self._any is not None:
            return self._any
        return self._others if origin is None else self._known.get(origin, self._others)


def as_origin(text: str) -> str:
    """An origin as browsers write it: scheme, host, and the port where it is not the scheme's own.

    Raises `ValueError` for what no browser would ever send, which would let nobody in.
    """
    text = text.strip()
    if text == ANY:
        return text
    try:
        return _written(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no origin: {error}") from None


def _written(text: str) -> str:
    parts = urlsplit(text)
    scheme, host = parts.scheme.lower(), re.sub(r":\d*$", "", parts.netloc)
    if "://" not in text or not scheme:
        raise ValueError(f"a scheme is needed, such as {f'http://{text}'!r}")
    if parts.path not in ("", "/") or parts.query or parts.fragment or "@" in host:
        raise ValueError("give scheme, host and port alone, such as 'https://app.example.org'")
    if not host or not host.isascii() or re.search(r"[\s*,]", host):
        raise ValueError("its host is none that a browser would send")
    port = "" if parts.port in (None, _PORTS.get(scheme)) else f":{parts.port}"
    return f"{scheme}://{host.lower()}{port}"


def _letting(origin: bytes, *, varies: bool) -> Head:
    cross = (b"access-control-allow-origin", origin), (b"access-control-expose-headers", _EXPOSED)
    return Head(cross, varies)
