"""Python's client against servers whose streams are cut, broken or without end."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

import pytest

from tests.attack.hostile import (
    EVENTS,
    RAISE,
    Ask,
    each_stream,
    endless,
    events,
    forecast,
    head,
    hostile,
    refused,
)


@each_stream
@pytest.mark.parametrize(
    "rest", [b"a" * 65536, b"data: aaaa\n" * 4096, b"data\n" * 4096], ids=["a line", "an event", "empty data"]
)
@pytest.mark.parametrize("first", [b"data: ", b": ", b"event: "])
def test_an_event_without_end_is_bounded(ask: Ask, first: bytes, rest: bytes) -> None:
    assert RAISE in refused(ask, endless(head(content_type=EVENTS) + first, rest))


def result(request: bytes, mean: float = 1.0) -> bytes:
    return b"data: " + json.dumps(forecast(request, type="result", done=True, mean=[mean])).encode() + b"\n\n"


STEP = b'event: progress\ndata: {"step": 1, "total_steps": 2, "done": false}\n\n'


@each_stream
@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_a_stream_is_read_however_it_is_cut(ask: Ask, end: bytes) -> None:
    def make(request: bytes) -> Iterator[bytes]:
        told = '\ufeffid: 1\0\nretry: x\nnonsense\n: grüße\n\nevent: später\ndata: {"a": "日本"}\n\n'.encode()
        for byte in (told + STEP + result(request)).replace(b"\n", end):
            yield bytes([byte])

    # Nothing comes behind the result, and the connection stays.
    with hostile(events(make, content_length=2**20)) as server:
        assert ask(server.url, timeout=20).mean == [1.0]


@each_stream
def test_the_first_result_is_the_last_event(ask: Ask) -> None:
    def make(request: bytes) -> Iterable[bytes]:
        return [result(request) + result(request, 2.0) + b"data: {broken\n\n"]

    with hostile(events(make)) as server:
        assert ask(server.url).mean == [1.0]


@each_stream
@pytest.mark.parametrize(
    "data",
    [
        b"",
        STEP,
        b"data: {\n\n",
        b"data: " + b"[" * 100_000 + b"\n\n",
        b'data: {"type": []}\n\n',
        b"data: 1\n\n",
    ],
)
def test_a_stream_without_a_result_is_a_bad_response(ask: Ask, data: bytes) -> None:
    refused(ask, events(lambda _: [data]))
