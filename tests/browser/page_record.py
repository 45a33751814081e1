"""Records what a page asks for and complains about, and stops what it asks beyond the origins it may."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from playwright.sync_api import BrowserContext, ConsoleMessage, Route


@dataclass
class PageRecord:
    """What a page asked for and complained about; requests beyond `origins` are stopped."""

    origins: set[str] = field(default_factory=set[str])
    urls: list[str] = field(default_factory=list[str])
    fonts: list[str] = field(default_factory=list[str])
    foreign: list[str] = field(default_factory=list[str])
    faults: list[str] = field(default_factory=list[str])

    def allow(self, url: str) -> None:
        """Let the page talk to this server; everything else counts as foreign."""
        self.origins.add(_origin(url))

    def watch(self, context: BrowserContext) -> None:
        context.route("**/*", self._let_through)
        context.on("request", lambda request: self._note(request.url, request.resource_type))
        context.on("console", self._hear)
        context.on("weberror", lambda error: self.faults.append(str(error.error)))
        context.on("page", lambda page: page.on("websocket", lambda ws: self._note(ws.url, "websocket")))

    def _is_foreign(self, url: str) -> bool:
        return urlsplit(url).scheme not in ("data", "blob", "about") and _origin(url) not in self.origins

    def _let_through(self, route: Route) -> None:
        if self._is_foreign(route.request.url):
            route.abort("blockedbyclient")
        else:
            route.continue_()

    def _note(self, url: str, kind: str) -> None:
        self.urls.append(url)
        if kind == "font":
            self.fonts.append(url)
        if self._is_foreign(url):
            self.foreign.append(url)

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(f"{message.type}: {message.text}")


def _origin(url: str) -> str:
    parts = urlsplit(url)
    scheme = {"ws": "http", "wss": "https"}.get(parts.scheme, parts.scheme)
    return f"{scheme}://{parts.netloc}"
