"""How much of a connection is read ahead: requests that wait behind others take memory before they are due.

A request of 26 bytes is some kilobytes once its head is read, so ten thousand of them in one read would be
megabytes for each connection, and hold all others up until the last is parsed.
"""

from __future__ import annotations

from uvicorn.protocols.http.flow_control import FlowControl

#: What stands in the first line of every request; others are refused.
_VERSION = b" HTTP/1."
#: Data up to this size holds few requests.
SMALL = 1024


def is_crowded(data: bytes, most: int) -> bool:
    """Whether data may hold more than so many requests."""
    return data.count(_VERSION) > most


class HeldFlow(FlowControl):
    """uvicorn's flow control, which reads nothing more while something that came is held back."""

    _held = False

    def hold(self, *, held: bool) -> None:
        """Read no more, or again."""
        if held != self._held:
            self._held = held
            (self.pause_reading if held else self.resume_reading)()

    def resume_reading(self) -> None:
        if self.read_paused and not self._held:
            super().resume_reading()
