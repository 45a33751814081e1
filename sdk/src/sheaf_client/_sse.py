"""Reads Server-Sent Events from chunks that may break anywhere (HTML standard, section 9.2.6)."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class ServerSentEvent:
    event: str
    data: str
    id: str


class Parser:
    """Feed it bytes; it gives the events that are complete. Comments (keep-alives) are dropped."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        #: The pieces of the line that is still to end: events with tensors come in many chunks.
        self._line: list[str] = []
        self._held = ""
        self._data: list[str] = []
        self._event = ""
        self._id = ""

    def feed(self, chunk: bytes) -> Iterator[ServerSentEvent]:
        # A lone CR at the end may be the first half of CRLF: it stays until the next chunk shows.
        text = self._held + self._decoder.decode(chunk)
        self._held = "\r" if text.endswith("\r") else ""
        text = text.removesuffix("\r").replace("\r\n", "\n").replace("\r", "\n")
        for number, piece in enumerate(text.split("\n")):
            if number > 0:
                event = self._read("".join(self._line))
                self._line.clear()
                if event is not None:
                    yield event
            self._line.append(piece)

    def _read(self, line: str) -> ServerSentEvent | None:
        if not line:
            event = (
                ServerSentEvent(self._event or "message", "\n".join(self._data), self._id)
                if self._data
                else None
            )
            self._data, self._event = [], ""
            return event
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id":
            self._id = value
        return None
