"""One request over HTTP from its head to the end of its answer: what is known of it, and what was sent.

Every answer's head is completed here, in one place, by the request's identifier and what all heads have.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from starlette._utils import get_route_path
from starlette.types import Message, Receive, Scope, Send

from sheaf.http.heads import PLAIN, Head, Origins
from sheaf.observability.context import CurrentRequest

if TYPE_CHECKING:
    from sheaf.http.callers import Caller
    from sheaf.http.memory import Share
    from sheaf_client.contracts.base import BaseRequest

RequestT = TypeVar("RequestT", bound="BaseRequest")

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_NONE: Mapping[str, Any] = {}
#: Most bytes of a body that a server is given at once.
_PIECE = 256 * 1024


class Exchange(CurrentRequest):
    """What passes between a client and the app.

    Attributes:
        caller: Who sends the request, once they were let in.
        share: What it holds of the server's memory; None where that is next to nothing.
        head: What the answer's head has in common with others.
        code: The problem that answers it, if one does.
        status: Of the answer; 500 before there is one.
        started: Whether the answer's head was sent.
        complete: Whether the answer is whole.
        left: Whether the client left before that.
    """

    __slots__ = (
        *("_fields", "_receive", "_send", "caller", "code", "complete", "left"),
        *("head", "method", "path", "scope", "share", "started", "status"),
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send, origins: Origins | None = None) -> None:
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        if type(headers) is not list:  # servers may give any iterable
            headers = scope["headers"] = list(headers)
        # The first of each name, as the last to be put in.
        self._fields: dict[bytes, bytes] = dict(reversed(headers))
        self.head: Head = PLAIN if origins is None else origins.head(self._fields.get(b"origin"))
        given = self.header(b"x-request-id")
        # The caller's identifier where it is printable and short.
        super().__init__(given if given and _REQUEST_ID.fullmatch(given) else None, headers=headers)
        self.scope = scope
        self.method: str = scope["method"]
        # Below the path at which the app is mounted, as the router has it: a gate reads the same.
        self.path = get_route_path(scope) if scope.get("root_path") else str(scope["path"])
        self._receive, self._send = receive, send
        self.caller: Caller | None = None
        self.share: Share | None = None
        self.code: str | None = None
        self.status = 500
        self.started = self.complete = self.left = False

    def header(self, name: bytes) -> str:
        """The first header of that lower-case name; empty where there is none."""
        value = self._fields.get(name)
        return value.decode("latin-1") if value else ""

    def joined(self, name: bytes) -> str:
        """All headers of that lower-case name, as the one list that they stand for (RFC 9110, 5.3)."""
        if name not in self._fields:
            return ""
        values = [value.decode("latin-1") for key, value in self.scope["headers"] if key == name]
        return ", ".join(values)

    def share_name(self, contract: RequestT) -> RequestT:
        """Give the exchange and its contract one identifier, the header's before the body's.

        Where the body names another than the header, or the header's is no UUID, each keeps its own.
        """
        if b"x-request-id" not in self._fields:
            self._request_id = str(contract.request_id)
        elif "request_id" not in contract.model_fields_set and _UUID.fullmatch(self._request_id or ""):
            return contract.model_copy(update={"request_id": UUID(self._request_id)})
        return contract

    def whole_body(self, most: int) -> bytes | None:
        """The body, where the server has all of it by now, which is at most so many bytes.

        It can then not be received again.
        """
        whole = self.scope.get("extensions", _NONE).get("sheaf.body")
        return None if whole is None else whole(most)

    async def receive(self) -> Message:
        """The next message of the client, as ASGI has it."""
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self.complete:
            self.left = True
        return message

    async def send(self, message: Message) -> None:
        """A message to the client, as ASGI has it."""
        if message["type"] == "http.response.start":
            self.started, self.status = True, message["status"]
            message["headers"] = self.head.complete(list(message.get("headers", ()))) + self._own_headers()
            await self._send(message)
        elif message["type"] == "http.response.body":
            await self._send_body(message.get("body", b""), more=message.get("more_body", False))
        else:
            await self._send(message)

    async def _send_body(self, content: bytes, *, more: bool = False) -> None:
        """A part of the body, in pieces: servers take the next once the client has taken most of the last.

        So what waits for a slow client is here, where it is counted, and not in the buffer of a connection.
        """
        start = 0
        while len(content) - start > _PIECE:
            piece = content[start : start + _PIECE]
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})
            start += _PIECE
        if not more:
            self.complete = True
            # What a server takes of an answer may be sent to nobody.
            self.left = self.left or "sheaf.left" in self.scope.get("extensions", _NONE)
        rest = content[start:] if start else content
        await self._send({"type": "http.response.body", "body": rest, "more_body": more})

    def answer_now(self, content: bytes, media: bytes) -> bool:
        """Send a whole answer of status 200, where the server takes it at once; else nothing was done."""
        whole = self.scope.get("extensions", _NONE).get("sheaf.answer")
        if whole is None or (self.caller is not None and self.caller.account is not None):
            return False
        facts = (self.head.lines, len(content), media, self.request_id.encode("ascii"))
        head = b"%bcontent-length: %d\r\ncontent-type: %b\r\nx-request-id: %b\r\n" % facts
        if not whole(head, content):
            return False
        self.status, self.started, self.complete = 200, True, True
        return True

    async def answer(self, content: bytes, media: bytes, encoding: bytes | None = None) -> None:
        """Send a whole answer of status 200."""
        await self._send(self._head_of(media, encoding, (b"content-length", b"%d" % len(content))))
        await self._send_body(content)

    async def answer_in_parts(
        self, parts: AsyncIterator[bytes], media: bytes, encoding: bytes | None = None
    ) -> None:
        """Send an answer of status 200 whose length is not known yet, each part once the last was taken."""
        await self._send(self._head_of(media, encoding))
        async for part in parts:
            await self._send_body(part, more=True)
        await self._send_body(b"")

    def _head_of(self, media: bytes, encoding: bytes | None, *more: tuple[bytes, bytes]) -> Message:
        """The head of an answer of status 200, which is about to be sent."""
        self.started, self.status = True, 200
        own = [(b"content-encoding", encoding), *self._own_headers()] if encoding else self._own_headers()
        headers = [*more, (b"content-type", media), *self.head.headers, *own]
        return {"type": "http.response.start", "status": 200, "headers": headers}

    def _own_headers(self) -> list[tuple[bytes, bytes]]:
        headers = [(b"x-request-id", self.request_id.encode("ascii"))]
        if self.caller is not None and self.caller.account is not None:
            headers += self.caller.headers()
        return headers
