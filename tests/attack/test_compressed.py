"""A compressed body is read to its end or refused: nothing is dropped in silence, and bombs stay small."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable

import httpx
import pytest
import zstandard

from sheaf.http.limits import Limits
from tests.http.conftest import GOOD, Serve

JSON = ("content-type", "application/json")
CONTENT = json.dumps({**GOOD, "item_id": "x" * 100}).encode()
SQUEEZE: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "zstd": zstandard.compress}
#: A part of zstd that decoders pass over.
SKIPPED = b"\x50\x2a\x4d\x18\x05\0\0\0notes"


def flushed(content: bytes) -> bytes:
    """A frame of zstd in blocks, of a sender that flushes: it does not say how long its content is."""
    stream = zstandard.ZstdCompressor(write_checksum=True).compressobj()
    parts = [stream.compress(content[:40]), stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)]
    return b"".join([*parts, stream.compress(content[40:]), stream.flush()])


def ask(url: str, content: bytes, *encodings: str) -> tuple[int, str]:
    headers = [JSON, *(("content-encoding", encoding) for encoding in encodings)]
    answer = httpx.post(f"{url}/echo/predict", content=content, headers=headers)
    return answer.status_code, answer.json().get("code", "")


@pytest.mark.parametrize("name", SQUEEZE)
def test_all_members_are_read(serve: Serve, name: str) -> None:
    url, squeeze = serve().url, SQUEEZE[name]
    assert ask(url, squeeze(CONTENT), name) == (200, "")
    halves = squeeze(CONTENT[:100]) + squeeze(b"") + squeeze(CONTENT[100:])
    assert ask(url, halves, name) == (200, "")
    # The second makes the whole no JSON any more, or adds what the contract does not have.
    assert ask(url, squeeze(CONTENT) + squeeze(b"junk"), name) == (400, "malformed")
    assert ask(url, squeeze(CONTENT[:-1]) + squeeze(b', "junk": 1}'), name) == (422, "invalid")


@pytest.mark.parametrize("name", SQUEEZE)
@pytest.mark.parametrize("behind", [b"x", b"\0", b"\0" * 40, CONTENT], ids=["byte", "zero", "zeros", "JSON"])
def test_what_follows_and_is_no_member_is_refused(serve: Serve, name: str, behind: bytes) -> None:
    url, packed = serve().url, SQUEEZE[name](CONTENT)
    assert ask(url, packed + behind, name) == (400, "malformed")


@pytest.mark.parametrize(
    ("name", "packed"),
    [("gzip", gzip.compress(CONTENT)), ("zstd", zstandard.compress(CONTENT)), ("zstd", flushed(CONTENT))],
    ids=["gzip", "zstd", "zstd in blocks"],
)
def test_what_is_cut_off_is_refused(serve: Serve, name: str, packed: bytes) -> None:
    url = serve().url
    assert ask(url, packed, name) == (200, "")
    for length in range(0, len(packed), 7):
        assert ask(url, packed[:length], name) == (400, "malformed"), length
    assert ask(url, packed[:-1], name) == (400, "malformed")
    # Cut within the second of two.
    assert ask(url, packed + packed[:-1], name) == (400, "malformed")


def test_what_zstd_passes_over_is_passed_over(serve: Serve) -> None:
    url, packed = serve().url, zstandard.compress(CONTENT)
    assert ask(url, SKIPPED + packed + SKIPPED, "zstd") == (200, "")
    assert ask(url, packed + SKIPPED[:-1], "zstd") == (400, "malformed")


@pytest.mark.parametrize(
    ("encodings", "status"),
    [
        (("gzip", "gzip"), 415),
        (("gzip", "zstd"), 415),
        (("gzip, gzip",), 415),
        (("identity", "gzip"), 200),
        (("", "gzip"), 200),
        (("gzip", "identity"), 200),
        (("identity, GZIP",), 200),
        (("identity", "br"), 415),
    ],
)
def test_several_encodings_are_one_list(serve: Serve, encodings: tuple[str, ...], status: int) -> None:
    assert ask(serve().url, gzip.compress(CONTENT), *encodings)[0] == status
    if status == 415:  # as a sender that means it would do
        assert ask(serve().url, gzip.compress(gzip.compress(CONTENT)), *encodings)[0] == status


@pytest.mark.parametrize("name", SQUEEZE)
def test_bombs_of_many_members_are_refused(serve: Serve, name: str) -> None:
    url, squeeze = serve(limits=Limits(max_body=2**20)).url, SQUEEZE[name]
    assert ask(url, squeeze(b" " * 2**16) * 40, name) == (413, "too_large")
    assert ask(url, squeeze(b"") * 30_000, name) == (400, "malformed")
    assert ask(url, squeeze(CONTENT), name) == (200, "")
