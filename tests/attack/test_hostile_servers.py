"""Python's client against servers that answer with anything: bounded, typed, and no key for anybody else."""

from __future__ import annotations

import gzip
import json
import threading
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import httpx
import msgspec
import pytest

from sheaf_client import (
    ArgumentError,
    BadResponseError,
    CallTimeoutError,
    ConnectionFailedError,
    ProblemError,
    Sheaf,
    SheafError,
)
from sheaf_client._retry import retry_after
from sheaf_client.errors import FeatureStoreError, OverloadedError
from tests.attack.hostile import (
    CALL,
    CALLS,
    LIMIT,
    NOBODY,
    STREAMS,
    Answer,
    Ask,
    endless,
    events,
    forecast,
    good,
    head,
    hostile,
    whole,
)

EVENTS = "text/event-stream"
RAISE = "max_answer_bytes"
each_call = pytest.mark.parametrize("ask", CALLS)
each_stream = pytest.mark.parametrize("ask", STREAMS)
each = pytest.mark.parametrize("ask", CALLS + STREAMS)


def refused(ask: Ask, *answers: Answer, kind: type[SheafError] = BadResponseError, **settings: Any) -> str:
    """What the error says; the server was asked once and sent no more than sockets and the limit hold."""
    with hostile(*answers) as server:
        with pytest.raises(kind) as caught:
            ask(server.url, **{"max_answer_bytes": LIMIT, "timeout": 30, **settings})
        assert len(server.requests) == 1
        assert server.sent < LIMIT + 16 * 2**20
    return str(caught.value)


CHUNK = b"10000\r\n" + b" " * 65536 + b"\r\n"


@each_call
@pytest.mark.parametrize(
    "answer",
    [
        endless(head(content_length=2**60), b" " * 65536),
        endless(head(content_length="9" * 5000), b" "),
        endless(head(transfer_encoding="chunked"), CHUNK),
        endless(head(), b" " * 65536),
        endless(head("503 Busy", transfer_encoding="chunked"), CHUNK),
    ],
    ids=["length", "length of 5000 digits", "chunks", "until closed", "an error"],
)
def test_an_answer_without_end_is_bounded(ask: Ask, answer: Answer) -> None:
    text = refused(ask, answer)
    assert RAISE in text or "does not answer by HTTP" in text  # h11 takes lengths of at most 20 digits


@each_call
def test_the_bound_is_an_option_and_holds_to_the_byte(ask: Ask) -> None:
    with hostile(good) as server:
        size = len(json.dumps(forecast(b"x-request-id: " + str(NOBODY).encode() + b" ")))
        assert ask(server.url, max_answer_bytes=size).mean == [1.0]
        assert ask(server.url, max_answer_bytes=None).mean == [1.0]
        with pytest.raises(BadResponseError, match=f"larger than {size - 1} bytes"):
            ask(server.url, max_answer_bytes=size - 1)
    wrongs: list[Any] = [0, -1, 1.5, True, "1"]
    for wrong in wrongs:
        with pytest.raises(ArgumentError, match=RAISE):
            Sheaf(max_answer_bytes=wrong)


def zeros(encoding: str) -> bytes:
    """64 MiB in a few bytes."""
    if encoding == "zstd":
        zstandard = pytest.importorskip("zstandard")
        return zstandard.ZstdCompressor().compress(b" " * (64 * LIMIT))
    if encoding == "gzip":
        return gzip.compress(b" " * (64 * LIMIT))
    packer = zlib.compressobj(wbits=zlib.MAX_WBITS if encoding == "deflate" else -zlib.MAX_WBITS)
    return packer.compress(b" " * (64 * LIMIT)) + packer.flush()


ENCODINGS = ["gzip", "deflate", "raw deflate", "zstd"]


@pytest.mark.parametrize("encoding", ENCODINGS)
@each
def test_a_bomb_is_bounded(ask: Ask, encoding: str) -> None:
    media = EVENTS if ask in STREAMS else "application/json"
    bomb = whole(zeros(encoding), content_encoding=encoding.removeprefix("raw "), content_type=media)
    assert RAISE in refused(ask, bomb)


@pytest.mark.parametrize("encoding", ENCODINGS)
@each
def test_packed_answers_are_read(ask: Ask, encoding: str) -> None:
    def pack(plain: bytes) -> bytes:
        if encoding == "zstd":
            packer = pytest.importorskip("zstandard").ZstdCompressor()
            return packer.compress(plain[:5]) + packer.compress(plain[5:])
        if encoding == "gzip":
            return gzip.compress(plain[:5]) + gzip.compress(plain[5:]) + b"\0" * 8
        packer = zlib.compressobj(wbits=zlib.MAX_WBITS if encoding == "deflate" else -zlib.MAX_WBITS)
        return packer.compress(plain) + packer.flush()

    def answer(request: bytes) -> Iterable[bytes]:
        told = json.dumps(forecast(request, type="result", done=True)).encode()
        plain, media = (b"data: " + told + b"\n\n", EVENTS) if ask in STREAMS else (told, "application/json")
        body = pack(plain)
        named = encoding.removeprefix("raw ")
        yield head(content_type=media, content_encoding=named, content_length=len(body))
        for at in range(len(body)):
            yield body[at : at + 1]

    with hostile(answer) as server:
        assert ask(server.url).mean == [1.0]


@each_call
@pytest.mark.parametrize(
    ("encoding", "body", "match"),
    [
        ("br", b"\x8b\x03\x80{}\x03", "encoded as 'br'"),
        ("gzip, gzip", gzip.compress(gzip.compress(b"{}", mtime=0), mtime=0), "encoded as"),
        ("gzip", gzip.compress(b"{}" * 100, mtime=0)[:-9], "breaks off"),
        ("gzip", b"this is no gzip", "cannot be unpacked"),
        ("zstd", b"this is no zstd", "cannot be unpacked"),
    ],
)
def test_what_cannot_be_unpacked_is_said(ask: Ask, encoding: str, body: bytes, match: str) -> None:
    if encoding == "zstd":
        pytest.importorskip("zstandard")
    assert match in refused(ask, whole(body, content_encoding=encoding))


@each
def test_a_head_without_end_is_bounded(ask: Ask) -> None:
    assert "HTTP" in refused(ask, endless(b"HTTP/1.1 200 OK\r\n", b"x-a: b\r\n" * 500))
    assert "HTTP" in refused(ask, endless(b"HTTP/1.1 200 OK\r\nx-a: ", b"b" * 4096))


@each_stream
@pytest.mark.parametrize(
    "rest", [b"a" * 65536, b"data: aaaa\n" * 4096, b"data\n" * 4096], ids=["a line", "an event", "empty data"]
)
@pytest.mark.parametrize("first", [b"data: ", b": ", b"event: "])
def test_an_event_without_end_is_bounded(ask: Ask, first: bytes, rest: bytes) -> None:
    assert RAISE in refused(ask, endless(head(content_type=EVENTS) + first, rest))


@each
def test_a_trickle_ends_with_the_time_of_the_call(ask: Ask) -> None:
    media = EVENTS if ask in STREAMS else "application/json"
    for piece in (b": here\n\n", b" "):
        text = refused(
            ask,
            endless(head(content_type=media), piece),
            kind=CallTimeoutError,
            timeout=0.3,
            max_answer_bytes=None,
        )
        assert "time" in text
    assert "time" in refused(ask, lambda _: iter(()), kind=CallTimeoutError, timeout=0.3)


@each
@pytest.mark.parametrize(
    ("first", "piece"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"a: b\r\n"),
        (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
        (head(transfer_encoding="chunked") + b"2;", b"a"),
        (head(transfer_encoding="chunked", content_type=EVENTS) + b"1\r\n:\r\n0\r\n", b"a: b\r\n"),
    ],
    ids=["a head", "interim answers", "a chunk's extension", "trailers"],
)
def test_a_trickle_between_the_parts_of_an_answer_ends_with_the_time_of_the_call(
    ask: Ask, first: bytes, piece: bytes
) -> None:
    pause = threading.Event()  # pieces within the limit of each

    def pieces(_: bytes) -> Iterator[bytes]:
        yield first
        while not pause.wait(0.05):
            yield piece

    try:
        assert "time" in refused(ask, pieces, kind=CallTimeoutError, timeout=0.3)
    finally:
        pause.set()


def sends(data: bytes) -> Answer:
    return lambda _: [data]


@each_call
@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (whole(b'{"mean": [1'), BadResponseError),
        (
            whole(msgspec.msgpack.encode({"mean": [1]})[:-1], content_type="application/msgpack"),
            BadResponseError,
        ),
        (whole(b"\xc1", content_type="application/msgpack"), BadResponseError),
        (sends(head(content_length=100, connection="close") + b"{}"), ConnectionFailedError),
        (sends(head(transfer_encoding="chunked") + b"zz\r\n{}"), BadResponseError),
        (sends(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), BadResponseError),
        (sends(head("999 What", content_length=0)), BadResponseError),
        (sends(head("304 Not Modified", content_length=0)), BadResponseError),
        (whole(b"<html>hello", content_type="text/html"), BadResponseError),
        (whole(b"{}", content_type="application/msgpack"), BadResponseError),
        (whole(b"[" * 500_000), BadResponseError),
        (whole(b"\x91" * 500_000, content_type="application/msgpack"), BadResponseError),
        (whole(b'{"mean": [' + b"9" * 900_000 + b"]}"), BadResponseError),
        (whole(b'{"mean": [1e999]}'), BadResponseError),
        (whole(b"\xff\xfe{}"), BadResponseError),
        (whole(b""), BadResponseError),
    ],
)
def test_broken_answers_are_typed(ask: Ask, answer: Answer, kind: type[SheafError]) -> None:
    refused(ask, answer, kind=kind)


@each
def test_a_page_of_a_proxy_is_named(ask: Ask) -> None:
    assert "text/html" in refused(ask, whole(b"<html>hello", content_type="text/html; charset=utf-8"))
    text = refused(
        ask, whole(b"<html>secret", "502 Bad Gateway", content_type="text/html"), kind=ProblemError
    )
    assert "HTTP 502 from something that is not Sheaf" in text
    with hostile(whole(b"<html>", "502 Bad Gateway")) as server, pytest.raises(ProblemError) as caught:
        ask(server.url)
    assert not isinstance(caught.value, FeatureStoreError)
    assert (caught.value.status, caught.value.code) == (502, "http_502")


@each
def test_duplicate_keys_are_read_as_their_last(ask: Ask) -> None:
    def answer(request: bytes) -> Iterable[bytes]:
        told = b'{"request_id": "no", ' + json.dumps(forecast(request, type="result")).encode()[1:]
        return (
            [head(content_type=EVENTS), b"data: " + told + b"\n\n"]
            if ask in STREAMS
            else whole(told)(request)
        )

    with hostile(answer) as server:
        assert ask(server.url).mean == [1.0]


# ---- streams


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


# ---- redirects


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


# ---- waits and errors


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


# ---- connections


@each
def test_a_server_that_closes_is_told_by_when(ask: Ask) -> None:
    closing: Answer = lambda _: [b"HTTP/1.1 200 OK\r\nconnection: close\r\n"]  # noqa: E731
    with hostile(closing) as server, pytest.raises(ConnectionFailedError) as caught:
        ask(server.url, max_retries=0)
    assert caught.value.unanswered


def test_an_answer_too_many_is_nobodys() -> None:
    def twice(request: bytes) -> Iterable[bytes]:
        return [b"".join(good(request)) * 2]

    with hostile(twice, good) as server, Sheaf(server.url) as client:
        assert client.time_series.forecast(**CALL).mean == [1.0]
        with pytest.raises(BadResponseError, match="The answer is to request"):
            client.time_series.forecast(**CALL)
        # What is left on that connection is of nobody's, so it was closed.
        assert client.time_series.forecast(**CALL).mean == [1.0]
