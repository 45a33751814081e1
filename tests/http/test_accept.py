"""Which encoding an answer has, by the caller's `Accept`: JSON, and MessagePack for who prefers that."""

from __future__ import annotations

import httpx
import msgspec
import pytest

from sheaf.http.encodings import qualities
from tests.http.conftest import GOOD, Serve

PACKED = "application/msgpack"


@pytest.mark.parametrize(
    ("accept", "packed"),
    [
        ("", False),
        ("*/*", False),
        ("text/html", False),
        ("application/json", False),
        (PACKED, True),
        (f"{PACKED};q=0.1", True),
        (f"{PACKED};q=0", False),
        # A tie is JSON's, whichever comes first: forms of documents list all that there is.
        (f"application/json, {PACKED}", False),
        (f"{PACKED}, application/json", False),
        (f"{PACKED};q=0.50,application/json;q=0.5", False),
        (f"{PACKED}, application/json;q=0.9", True),
        (f"application/json;q=0.9, {PACKED}", True),
        (f"{PACKED};q=0.9, application/json", False),
        (f"{PACKED} ; q=0.9 , application/json ; q=0.8", True),
        # Ranges: what is named goes first, but not where it is less welcome.
        (f"{PACKED}, */*", True),
        (f"{PACKED}, */*;q=0.8", True),
        (f"{PACKED};q=0.5, */*", False),
        (f"{PACKED};q=0.8, application/*;q=0.9", False),
        (f"{PACKED};q=0.8, application/*;q=0.7, */*", True),
        (f"application/json;q=0, {PACKED};q=0.1", True),
    ],
)
def test_json_wins_a_tie(serve: Serve, accept: str, *, packed: bool) -> None:
    server = serve()
    for path, body in (("predict", GOOD), ("time_series/forecast", GOOD), ("batch", {"requests": [GOOD]})):
        answer = httpx.post(f"{server.url}/echo/{path}", json=body, headers={"accept": accept})
        assert answer.headers["content-type"] == (PACKED if packed else "application/json")
        read = msgspec.msgpack.decode(answer.content) if packed else answer.json()
        assert read.get("responses", [read])[0]["mean"] == [2, 2]


@pytest.mark.parametrize("weight", ["0.5", "1", "1.000", "0", "0.", "0.001"])
def test_a_weight_is_a_number_from_0_to_1(weight: str) -> None:
    assert qualities(f"a;q={weight}, b;Q={weight}") == {"a": float(weight), "b": float(weight)}


@pytest.mark.parametrize("weight", ["2", "1.1", "-1", "nan", "inf", "1e0", "x", ""])
def test_what_is_no_weight_counts_as_none(weight: str) -> None:
    assert qualities(f"a;q={weight}") == {"a": 0.0}
