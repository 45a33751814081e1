"""Serves the OpenAPI document and the page that shows it: offline, everything from this package.

Scalar renders the page; a Content-Security-Policy keeps whatever it does on the serving origin.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from string import Template

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sheaf.http.encodings import qualities

SCALAR = "scalar-1.72.1.js.gz"

#: Styles are the one thing Scalar writes inline; what they may load is bound by the other directives.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_SCRIPT, _STYLE, _ICON = "text/javascript; charset=utf-8", "text/css; charset=utf-8", "image/svg+xml"
#: For addresses that carry the digest of what they serve.
_FOR_GOOD = "public, max-age=31536000, immutable"


def docs_routes() -> list[Route]:
    """Routes of `/docs`, of what it loads, and of the document in its two forms; all answer GET and HEAD.

    Every address in the page is relative, so the routes work under any mount point.
    """
    assets = {
        "scalar.js": _File(_read(f"static/{SCALAR}"), _SCRIPT, keep=_FOR_GOOD, packed=True),
        "page.js": _File(_read("static/page.js"), _SCRIPT, keep=_FOR_GOOD),
        "page.css": _File(_read("static/page.css"), _STYLE, keep=_FOR_GOOD),
        "icon.svg": _File(_read("static/icon.svg"), _ICON, keep=_FOR_GOOD),
    }
    digests = {name.replace(".", "_"): file.digest for name, file in assets.items()}
    page = Template(_read("static/docs.html").decode()).substitute(digests)
    routes = {
        "/docs": _File(page.encode(), "text/html; charset=utf-8", policy=CONTENT_SECURITY_POLICY),
        **{f"/docs/{name}": file for name, file in assets.items()},
        "/openapi.json": _File(_read("document/openapi.json"), "application/json"),
        "/openapi-3.2.json": _File(_read("document/openapi-3.2.json"), "application/json"),
    }
    return [Route(path, file.respond) for path, file in routes.items()]


def _read(name: str) -> bytes:
    return files("sheaf").joinpath("http", *name.split("/")).read_bytes()


@dataclass(frozen=True)
class _File:
    """One answer: `content` is gzip where `packed`, and unpacked for a client that does not take gzip."""

    content: bytes
    media_type: str
    keep: str = "no-cache"
    packed: bool = False
    policy: str | None = None

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.content).hexdigest()[:16]

    async def respond(self, request: Request) -> Response:
        """The file, or 304 where the client has it."""
        as_stored = not self.packed or _takes_gzip(request)
        headers = {
            "Cache-Control": self.keep,
            "ETag": f'"{self.digest}{"" if as_stored else "-plain"}"',
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
        }
        if self.policy:
            headers["Content-Security-Policy"] = self.policy
        if self.packed:
            headers["Vary"] = "Accept-Encoding"
        if headers["ETag"] in _tags(request):
            return Response(status_code=304, headers=headers)
        if self.packed and as_stored:
            headers["Content-Encoding"] = "gzip"
        content = self.content if as_stored else gzip.decompress(self.content)
        return Response(content, headers=headers, media_type=self.media_type)


def _header(request: Request, name: str) -> str:
    value: str = request.headers.get(name, "")
    return value


def _tags(request: Request) -> list[str]:
    return [tag.strip().removeprefix("W/") for tag in _header(request, "if-none-match").split(",")]


def _takes_gzip(request: Request) -> bool:
    """Whether `Accept-Encoding` names gzip, or anything at all, with a weight above 0."""
    weights = qualities(_header(request, "accept-encoding"))
    return weights.get("gzip", weights.get("*", 0)) > 0
