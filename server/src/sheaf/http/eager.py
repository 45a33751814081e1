"""Runs an awaitable up to where it first waits. Most are done by then, and need no timer beside them."""

from __future__ import annotations

from collections.abc import Awaitable, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Begun(Awaitable[T], Generic[T]):
    """An awaitable that has begun; what it raises before it waits is raised here.

    Where it is not `done` it is to be awaited, by the task that made it and before that waits for anything
    else.
    """

    __slots__ = ("_rest", "_waits_for", "done", "value")

    value: T

    def __init__(self, work: Awaitable[T]) -> None:
        self._rest: Generator[Any, Any, T] = work.__await__()
        self.done = False
        try:
            self._waits_for = next(self._rest)
        except StopIteration as end:
            self.done, self.value = True, end.value

    def __await__(self) -> Generator[Any, Any, T]:
        rest, waits_for = self._rest, self._waits_for
        try:
            while True:
                try:
                    sent = yield waits_for
                except GeneratorExit:
                    rest.close()
                    raise
                except BaseException as error:  # noqa: BLE001 - such as a cancellation, which is its own to handle
                    waits_for = rest.throw(error)
                else:
                    waits_for = rest.send(sent)
        except StopIteration as end:
            value: T = end.value
            return value
