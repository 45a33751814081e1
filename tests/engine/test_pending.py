"""What a server is called back for, without a task that waits."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from sheaf.engine.delivery import Reply
from sheaf.engine.observer import Observer
from sheaf.engine.pending import PendingRequest
from sheaf.engine.tracker import RequestTracker
from sheaf_client.errors import DeadlineExceededError, UnavailableError
from tests.conftest import MakeRequest


def tracked(make_request: MakeRequest) -> RequestTracker[Reply]:
    return RequestTracker(Observer(), "m", make_request(1.0), Reply)


def from_a_thread(tracker: RequestTracker[Reply]) -> None:
    thread = threading.Thread(target=tracker, args=(UnavailableError("gone"),))
    thread.start()
    thread.join()


def test_an_outcome_that_came_before_the_call_back_is_not_missed(make_request: MakeRequest) -> None:
    async def ask() -> None:
        tracker = tracked(make_request)
        pending = PendingRequest(tracker, None)
        from_a_thread(tracker)
        told: list[str] = []
        assert not pending.call_back(lambda: told.append("told"), 1)
        with pytest.raises(UnavailableError):
            await pending.answer()
        assert not told

    asyncio.run(ask())


def test_one_that_comes_after_it_is_told_on_the_loop(make_request: MakeRequest) -> None:
    async def ask() -> None:
        tracker = tracked(make_request)
        pending = PendingRequest(tracker, 60)
        told = asyncio.Event()
        assert pending.call_back(told.set, 1)
        from_a_thread(tracker)
        assert not told.is_set()
        await asyncio.wait_for(told.wait(), 10)
        assert isinstance(pending.outcome, UnavailableError)

    asyncio.run(ask())


def test_the_time_of_a_caller_runs_from_when_it_asked(make_request: MakeRequest) -> None:
    async def ask() -> None:
        pending = PendingRequest(tracked(make_request), 0.05)
        assert not pending.call_back(lambda: None, 0.06)
        begun = time.monotonic()
        while time.monotonic() - begun < 0.05:
            """The event loop is busy for all of it."""
        waiting = asyncio.ensure_future(pending.answer())
        turns = 0
        while not waiting.done():
            turns += 1
            await asyncio.sleep(0)
        assert isinstance(waiting.exception(), DeadlineExceededError)
        assert turns < 20

    asyncio.run(ask())
