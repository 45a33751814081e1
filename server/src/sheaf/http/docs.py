"""Serves the OpenAPI document of what is deployed and the page that shows it, offline, all from this package.

Scalar renders the page; a Content-Security-Policy keeps whatever it does on the serving origin.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from importlib.resources import files
from string import Template
from typing import TypeAlias

import anyio.to_thread
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sheaf.document import Deployment, Version, document_of
from sheaf.http.encodings import JSON_TYPE, listed, prefers, takes
from sheaf_client.contracts.models import ModelInfo

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


#: The models that a request may know of.
Listed: TypeAlias = Callable[[Request], Awaitable[Sequence[ModelInfo]]]


def docs_routes(listed: Listed) -> list[Route]:
    """Routes of `/docs`, of what it loads, and of the document in its two forms; all answer GET and HEAD.

    Every address in the page is relative, so the routes work under any mount point. A browser that asks for
    `/` is sent to the page.
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
    }
    return [
        Route("/", _home),
        *(Route(path, file.respond) for path, file in routes.items()),
        Route("/openapi.json", partial(_document, listed, "3.1")),
        Route("/openapi-3.2.json", partial(_document, listed, "3.2")),
    ]


async def _home(request: Request) -> Response:
    """To the page for who wants to look at it; all others are told where things are."""
    if not prefers(_header(request, "accept"), "text/html", JSON_TYPE):
        raise HTTPException(
            404, "There is nothing here: the models are at /models, their documentation at /docs."
        )
    # A path alone: what the Host header says may be anybody's.
    root: str = request.scope.get("root_path", "")
    return Response(status_code=307, headers={"Location": f"{root}/docs", "Vary": "Accept"})


async def _document(listed: Listed, version: Version, request: Request) -> Response:
    """The document of the models that the caller may know of."""
    deployed = tuple(
        Deployment(model.name, model.model_type, tuple(path.rsplit("/", 1)[1] for path in model.operations))
        for model in await listed(request)
        if model.operations  # of a type that the schema has
    )
    # Made in a while that others need not wait.
    file = await anyio.to_thread.run_sync(_document_file, deployed, version)
    return await file.respond(request)


#: Models change seldom, and keys that may call some alone are few.
@lru_cache(maxsize=16)
def _document_file(deployed: tuple[Deployment, ...], version: Version) -> _File:
    document = document_of(deployed, version=version)
    return _File(json.dumps(document, ensure_ascii=False).encode(), JSON_TYPE)


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

    @cached_property
    def plain(self) -> bytes:
        """What is packed, unpacked: once, and kept from then on."""
        return gzip.decompress(self.content)

    async def respond(self, request: Request) -> Response:
        """The file, or 304 where the client has it."""
        as_stored = not self.packed or takes(_header(request, "accept-encoding"), "gzip")
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
        # Megabytes: others need not wait.
        content = self.content if as_stored else await anyio.to_thread.run_sync(lambda: self.plain)
        return Response(content, headers=headers, media_type=self.media_type)


def _header(request: Request, name: str) -> str:
    value: str = request.headers.get(name, "")
    return value


def _tags(request: Request) -> list[str]:
    return [tag.strip().removeprefix("W/") for tag in listed(_header(request, "if-none-match"))]
