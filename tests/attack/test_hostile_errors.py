"""Python's client against servers that lead elsewhere, ask to wait, or fail in words of their own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable

import httpx
import pytest

from sheaf_client import (
    AsyncSheaf,
    BadResponseError,
    ProblemError,
    Sheaf,
)
from sheaf_client._retry import retry_after
from sheaf_client.errors import OverloadedError
from tests.attack.hostile import (
    CALL,
    CALLS,
    Ask,
    each,
    forecast,
    good,
    hostile,
    refused,
    whole,
)


@each
@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
def test_keys_go_to_no_other_server(ask: Ask, status: int) -> None:
    with hostile(good) as other:
        place = f"http://user:secret@{other.url.removeprefix('http://')}/m/predict"
        text = refused(
            ask, whole(b"", f"{status} Moved", location=place), api_key="k", headers={"x-api-key": "k"}
        )
        assert not other.requests
        assert other.url.removeprefix("http://") in text
        assert "secret" not in text
        assert "base_url" in text


def test_a_client_of_the_callers_follows_nothing_either() -> None:
    with hostile(good) as other, hostile(whole(b"", "307 Moved", location=other.url)) as server:
        own = httpx.Client(follow_redirects=True)
        with own, Sheaf(server.url, http_client=own) as client, pytest.raises(BadResponseError, match="307"):
            client.time_series.forecast(**CALL)
        assert not other.requests


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        *[("0", 0.0), ("12", 12.0), ("Fri, 01 Jan 1999 00:00:00 GMT", 0.0)],
        *[(wrong, None) for wrong in ("-5", "NaN", "1e9", "inf", "²", "٣", "", "soon", "0x10", "9" * 400)],
        ("Fri, 99 Jan 1999 00:00:00 GMT", None),
    ],
)
def test_a_wait_is_read_by_the_letter(header: str, seconds: float | None) -> None:
    assert retry_after(header) == seconds


@each
@pytest.mark.parametrize("wait", ["601", "1000000000", "Fri, 01 Jan 2100 00:00:00 GMT"])
def test_nobody_waits_as_long_as_a_server_likes(ask: Ask, wait: str) -> None:
    body = json.dumps(OverloadedError("Later.").to_problem().model_dump()).encode()
    busy = whole(body, "503 Busy", retry_after=wait)
    assert "Later" in refused(ask, busy, kind=OverloadedError, timeout=None)


@each
@pytest.mark.parametrize("wait", ["-5", "NaN", "²"])
def test_a_wait_that_is_none_is_as_none(ask: Ask, wait: str) -> None:
    with hostile(whole(b"busy", "503 Busy", retry_after=wait), good) as server:
        refused_twice = whole(b"busy", "429 Slow", retry_after=wait)
        with hostile(refused_twice) as other, pytest.raises(ProblemError):
            ask(other.url, max_retries=0)
        if ask in CALLS:
            assert ask(server.url).mean == [1.0]
            assert len(server.requests) == 2


@each
@pytest.mark.parametrize(
    "body", [b"[]", b"null", b'"no"', b"7", b"{}", b"[" * 100_000, b'{"retry_after": 1e999}']
)
def test_errors_of_other_shapes_keep_their_status(ask: Ask, body: bytes) -> None:
    text = refused(ask, whole(body, "500 Oops", content_type="application/problem+json"), kind=ProblemError)
    assert "HTTP 500" in text


@each
def test_the_text_of_an_error_is_short_and_steers_nothing(ask: Ask) -> None:
    wild = "\x1b[2J\0\r\nforged line\u202e\u2028"
    told = OverloadedError("x").to_problem().model_dump()
    fault = {"code": wild, "path": wild, "message": wild * 1000}
    told |= {"code": "constructor", "detail": wild + "a" * 10_000_000, "request_id": wild * 999}
    body = json.dumps({**told, "status": 500, "errors": [fault] * 50}).encode()
    text = refused(
        ask, whole(body, "500 Oops"), kind=ProblemError, max_answer_bytes=64 * 2**20, max_retries=0
    )
    assert len(text) < 100_000
    assert "\\x1b[2J\\x00\\r\\nforged line\\u202e\\u2028" in text
    assert "(10000" in text
    assert "and 30 more" in text
    assert all(character.isprintable() or character == "\n" for character in text)


@each
def test_a_redirect_to_nowhere_is_a_bad_response_too(ask: Ask) -> None:
    def lead(_: bytes) -> Iterable[bytes]:
        return [b"HTTP/1.1 302 Found\r\nlocation: http://\x9b31mred/\r\ncontent-length: 0\r\n\r\n"]

    text = refused(ask, lead, max_retries=3)
    assert "leads to nowhere" in text
    assert text.isprintable()


def test_a_server_has_no_say_in_the_heads_of_later_requests() -> None:
    def cookie(request: bytes) -> Iterable[bytes]:
        return whole(json.dumps(forecast(request)).encode(), set_cookie=f"a={'b' * 4000}; Path=/")(request)

    async def awaited(url: str) -> None:
        async with AsyncSheaf(url) as client:
            for _ in range(2):
                await client.time_series.forecast(**CALL)

    with hostile(cookie) as server:
        with Sheaf(server.url) as client:
            for _ in range(2):
                client.time_series.forecast(**CALL)
        asyncio.run(awaited(server.url))
        assert len(server.requests) == 4
        assert not [request for request in server.requests if b"cookie" in request.lower()]
