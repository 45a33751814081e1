"""Walks that each ask the potential for one structure after another, asked together.

A walk is ordinary code that calls and waits, so each has a thread of its own; the potential is called by the
thread that runs them all, once everyone who still walks has asked.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Generic, TypeVar

from sheaf.backends._families.atoms.motion import Evaluate
from sheaf.backends._families.atoms.structures import Properties, Structure
from sheaf.interrupts import as_error

T = TypeVar("T")


def run_together(
    walks: Sequence[Callable[[Evaluate], T]],
    evaluate: Callable[[Sequence[Structure]], Sequence[Properties | Exception]],
) -> list[T | Exception]:
    """What each walk returned or raised, in their order.

    Args:
        walks: each takes the function by which it asks.
        evaluate: answers structures of different walks at once; an exception in the place of an answer is
            raised in that walk alone, one that is raised ends all.
    """
    events: SimpleQueue[tuple[_Walker[T], Structure | None]] = SimpleQueue()
    walkers = [_Walker(walk, events) for walk in walks]
    for walker in walkers:
        walker.start()
    walking, asking = len(walkers), list[tuple[_Walker[T], Structure]]()
    failure: BaseException | None = None
    while walking:
        walker, structure = events.get()
        if structure is None:
            walking -= 1
        else:
            asking.append((walker, structure))
        if not asking or len(asking) < walking:
            continue
        answers: Sequence[Properties | Exception]
        try:
            answers = evaluate([structure for _, structure in asking]) if failure is None else []
        except BaseException as error:  # noqa: BLE001 - raised again below, when nobody waits any more
            failure = error
            answers = []
        for i, (waiting, _) in enumerate(asking):
            waiting.answers.put(answers[i] if failure is None else as_error(failure))
        asking = []
    if failure is not None:
        raise failure
    return [walker.outcome for walker in walkers]


class _Walker(threading.Thread, Generic[T]):
    outcome: T | Exception

    def __init__(
        self,
        walk: Callable[[Evaluate], T],
        events: SimpleQueue[tuple[_Walker[T], Structure | None]],
    ) -> None:
        super().__init__(daemon=True, name="sheaf-walk")
        self.answers: SimpleQueue[Properties | Exception] = SimpleQueue()
        self._walk = walk
        self._events = events

    def run(self) -> None:
        try:
            self.outcome = self._walk(self._ask)
        except BaseException as error:  # noqa: BLE001 - told to the caller in the place of the outcome
            self.outcome = as_error(error)
        finally:
            self._events.put((self, None))

    def _ask(self, structure: Structure) -> Properties:
        self._events.put((self, structure))
        answer = self.answers.get()
        if isinstance(answer, Exception):
            raise answer
        return answer
