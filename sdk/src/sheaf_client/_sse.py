"""Reads Server-Sent Events from chunks that may break anywhere (HTML standard, section 9.2.6)."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class ServerSentEvent:
    event: str
    data: str
    id: str


class EventTooLargeError(ValueError):
    """An event has more characters than the limit."""


class Parser:
    """Feed it bytes; it gives the events that are complete. Comments (keep-alives) are dropped.

    Args:
        limit: Most characters of one event, and of one line that is dropped; None for no limit.
    """

    def __init__(self, limit: int | None = None) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._limit = limit
        #: The line that is still to end: events with tensors come in many chunks.
        self._line = io.StringIO()
        self._after_cr = False
        self._data: list[str] = []
        self._size = 0
        self._event = ""
        self._id = ""

    def feed(self, chunk: bytes) -> Iterator[ServerSentEvent]:
        text = self._decoder.decode(chunk)
        if text:
            # A CR ends its line at once, or the last event would wait for more; an LF behind it is nothing.
            skipped = "\n" if self._after_cr else ""
            self._after_cr = text.endswith("\r")
            text = text.removeprefix(skipped)
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        for number, piece in enumerate(text.split("\n")):
            if number > 0:
                event = self._read(self._line.getvalue())
                self._line = io.StringIO()
                if event is not None:
                    yield event
            self._line.write(piece)
            if self._limit is not None and self._size + self._line.tell() > self._limit:
                raise EventTooLargeError

    def _read(self, line: str) -> ServerSentEvent | None:
        if not line:
            event = (
                ServerSentEvent(self._event or "message", "\n".join(self._data), self._id)
                if self._data
                else None
            )
            self._data, self._event, self._size = [], "", 0
            return event
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
            self._size += len(line) + 1
        elif name == "event":
            self._event = value
        elif name == "id":
            self._id = value
        return None
