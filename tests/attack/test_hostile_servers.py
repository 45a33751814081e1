"""Python's client against servers that answer with anything: bounded, typed, and no key for anybody else."""

from __future__ import annotations

import gzip
import json
import threading
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

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
from sheaf_client.errors import FeatureStoreError
from tests.attack.hostile import (
    CALL,
    EVENTS,
    LIMIT,
    NOBODY,
    RAISE,
    STREAMS,
    Answer,
    Ask,
    each,
    each_call,
    endless,
    forecast,
    good,
    head,
    hostile,
    refused,
    whole,
)

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
