"""Events on their way to a slow reader: bounded, in order, and the end always arrives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sheaf.engine import streams
from sheaf.engine.streams import MAX_PENDING, aiterate, iterate
from sheaf_client import ProgressEvent, ResultEvent
from sheaf_client._inputs.media import png_bytes
from sheaf_client._media import ImageFile
from sheaf_client.contracts.events import ImageProgress
from sheaf_client.errors import BackendError

MANY = 10 * MAX_PENDING


def flood(end: Any) -> Callable[[Callable[[Any], None]], Callable[[], None]]:
    """A stream that is over before anybody reads."""

    def open_stream(emit: Callable[[Any], None]) -> Callable[[], None]:
        for step in range(1, MANY + 1):
            emit(ProgressEvent(step=step, total_steps=step))
        emit(end)
        return lambda: None

    return open_stream


def by_thread(end: Any) -> list[Any]:
    return list(iterate(flood(end), 10, "r"))


def by_loop(end: Any) -> list[Any]:
    async def read() -> list[Any]:
        return [event async for event in aiterate(flood(end), 10, "r")]

    return asyncio.run(read())


@pytest.mark.parametrize("read", [by_thread, by_loop])
def test_the_latest_progress_and_the_result_arrive(
    read: Callable[[Any], list[Any]], make_request: Any
) -> None:
    *progress, result = read(ResultEvent(make_request()))
    assert isinstance(result, ResultEvent)
    assert [event.step for event in progress] == list(range(MANY - MAX_PENDING + 2, MANY + 1))


@pytest.mark.parametrize("read", [by_thread, by_loop])
def test_an_error_arrives_after_a_flood(read: Callable[[Any], list[Any]]) -> None:
    with pytest.raises(BackendError):
        read(BackendError("x"))


def test_files_of_steps_are_bounded_by_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MAX_PENDING_BYTES", 3500)
    pending = streams.Pending()
    preview = ImageFile(png_bytes(np.zeros((1, 1), np.uint8)).ljust(1000, b"x"))
    for step in range(1, 11):
        pending.put(ImageProgress(step=step, total_steps=10, preview=preview))
    kept = [event.step for event in iter(pending.take, None) if isinstance(event, ProgressEvent)]
    assert kept == [8, 9, 10]
