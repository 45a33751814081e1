"""What is refused before it is decoded: depth, files by their headers, and batches that are too long."""

from __future__ import annotations

import base64
import gzip
import json
import os
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import zstandard
from PIL import Image

from sheaf.contract.operations import all_operations
from sheaf.http.bodies import Body, decode
from sheaf.http.limits import Limits
from sheaf.http.memory import Memory, Share
from sheaf.http.nesting import count_msgpack, is_json_deeper
from sheaf.spec import ModelSpec
from sheaf_client._binary_fields import BinaryField, each
from tests.contract.echo import EchoBackend
from tests.contract.files import encoded, wav
from tests.http.conftest import GOOD, Serve

JSON = {"content-type": "application/json"}
PACKED = {"content-type": "application/msgpack"}
CASES = Path(__file__).parents[2] / "schema" / "cases"
SHARE = Share(Memory(Limits()), "")
WITH_MEDIA = [
    (operation, field)
    for operation in all_operations()
    for field in operation.request.__binary__.values()
    if field.dtype is None
]


def nested(depth: int) -> Any:
    value: Any = 1
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


@pytest.mark.parametrize("depth", [0, 1, 63, 64, 65, 66, 900])
def test_depth_is_told_without_decoding(depth: int) -> None:
    value = nested(depth)
    assert is_json_deeper(json.dumps(value).encode(), 64) == (depth > 64)
    assert (count_msgpack(msgspec.msgpack.encode(value), 64) is None) == (depth > 64)
    # Beside wide values, and in text, where brackets mean nothing.
    beside = {"x": [[1, 2.5, None, True, "é", -7, 70_000]] * 50, "b": b"\xdd" * 300, "deep": value}
    assert (count_msgpack(msgspec.msgpack.encode(beside), 65) is None) == (depth > 64)
    text = {"s": '"[[[' * 100 + '\\"{', "deep": value, "list": [[]] * 100}
    assert is_json_deeper(json.dumps(text).encode(), 65) == (depth > 64)


def test_depth_of_any_value_is_its_depth() -> None:
    chance = random.Random(7)

    def grow(left: int) -> Any:
        kind = chance.randrange(10) if left else chance.randrange(7)
        if kind > 8:
            return {f"k{i}": grow(left - 1) for i in range(chance.choice([0, 1, 3, 20]))}
        if kind > 6:
            return [grow(left - 1) for _ in range(chance.choice([0, 1, 3, 20]))]
        return [None, True, chance.random(), chance.randrange(-(2**40), 2**40), "x" * 300, "[", 3][kind]

    def depth_of(value: Any) -> int:
        if not isinstance(value, dict | list):
            return 0
        members = value.values() if isinstance(value, dict) else value
        return 1 + max(map(depth_of, members), default=0)

    for _ in range(300):
        value, most = grow(6), chance.randrange(1, 7)
        assert is_json_deeper(json.dumps(value).encode(), most) == (depth_of(value) > most)
        assert (count_msgpack(msgspec.msgpack.encode(value), most) is None) == (depth_of(value) > most)


def test_broken_bytes_are_left_to_the_decoders() -> None:
    for _ in range(2000):
        noise = os.urandom(120)
        is_json_deeper(noise, 2)
        count_msgpack(noise, 2)


@pytest.mark.parametrize("route", ["predict", "stream", "batch"])
def test_a_deep_body_is_refused(serve: Serve, route: str) -> None:
    server = serve(limits=Limits(max_depth=8))
    for content, headers in (
        (json.dumps({**GOOD, "x": nested(9)}).encode(), JSON),
        (msgspec.msgpack.encode({**GOOD, "x": nested(9)}), PACKED),
        (gzip.compress(json.dumps({**GOOD, "x": nested(9)}).encode()), {**JSON, "content-encoding": "gzip"}),
    ):
        answer = httpx.post(f"{server.url}/echo/{route}", content=content, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (400, "malformed")
        assert "deeper than 8" in answer.json()["detail"]


def test_many_lists_are_refused_before_they_take_their_memory() -> None:
    assert is_json_deeper(b"[" + b"[]," * 2_000_000 + b"[]]", 64)
    assert count_msgpack(b"\xdd" + struct.pack(">I", 4_000_000) + b"\x90" * 4_000_000, 64) is None
    assert count_msgpack(msgspec.msgpack.encode([1.5] * 1_000_000), 64) is not None


def test_a_batch_is_bounded(serve: Serve) -> None:
    server = serve(limits=Limits(max_batch=2))
    answer = httpx.post(f"{server.url}/echo/batch", json={"requests": [GOOD] * 3})
    assert answer.json()["errors"][0] == {
        "code": "too_long",
        "path": "/requests",
        "message": "Must have 1 to 2 items.",
    }


def test_a_bomb_is_not_unpacked_further_than_the_limit(serve: Serve) -> None:
    server = serve(limits=Limits(max_body=2**20))
    spaces = b" " * (64 * 2**20)
    for name, bomb in (("gzip", gzip.compress(spaces)), ("zstd", zstandard.compress(spaces))):
        headers = {**JSON, "content-encoding": name}
        assert httpx.post(f"{server.url}/echo/predict", content=bomb, headers=headers).status_code == 413
    # A frame whose window is over what RFC 9659 allows asks for that much memory.
    wide = zstandard.ZstdCompressionParameters(window_log=27)
    frame = zstandard.ZstdCompressor(compression_params=wide)
    stream = frame.compressobj()
    content = stream.compress(json.dumps(GOOD).encode()) + stream.flush()
    headers = {**JSON, "content-encoding": "zstd"}
    assert httpx.post(f"{server.url}/echo/predict", content=content, headers=headers).status_code == 400


def png_bomb(width: int = 60_000, height: int = 60_000) -> bytes:
    """A few bytes that any decoder takes for an image of these sides."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"")), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


BAD_MEDIA: dict[str, list[tuple[bytes, str]]] = {
    "image": [
        (png_bomb(), "too_large_media"),
        (png_bomb(0, 5), "bad_format"),
        (png_bomb()[:-20], "bad_format"),
        (b"<!doctype html><p>404</p>", "bad_format"),
        (wav(), "bad_format"),
    ],
    "audio": [
        (wav(rate=1, frames=4000), "too_large_media"),
        (wav().replace(struct.pack("<II", 16_000, 32_000), bytes(8)), "bad_format"),
        (wav().replace(struct.pack("<II", 16_000, 32_000), struct.pack("<II", 2**31, 2**31)), "out_of_range"),
        (wav().replace(struct.pack("<4sI", b"data", 320), struct.pack("<4sI", b"data", 10**7)), "bad_format"),
        (b"<!doctype html><p>404</p>", "bad_format"),
        (encoded(Image.new("RGB", (3, 2)), "PNG"), "bad_format"),
    ],
}


@pytest.mark.parametrize(
    ("operation", "field"), WITH_MEDIA, ids=[f"{op.model_type}-{field.name}" for op, field in WITH_MEDIA]
)
def test_every_media_field_of_every_contract_is_looked_at(operation: Any, field: BinaryField) -> None:
    from sheaf.http.media import check_media
    from sheaf_client.errors import InvalidRequestError

    for file in sorted((CASES / operation.model_type / "valid").glob("*.json")):
        body = json.loads(file.read_text())["request"]
        if body.get(field.wire):
            break
    else:
        pytest.fail("no case has this field")
    annotation = str(operation.request.model_fields[field.name].annotation)
    kind = next(k for k, t in (("image", "ImageFile"), ("audio", "AudioFile")) if t in annotation)
    for bad, code in BAD_MEDIA[kind]:
        text = base64.b64encode(bad).decode()
        places: list[str] = []

        def spoil(_: Any, loc: Any, text: str = text, places: list[str] = places) -> str:
            places.append("/" + "/".join(map(str, loc)))
            return text

        spoilt = {**body, field.wire: each(body[field.wire], spoil, (field.wire,))}
        try:
            request = decode(Body(json.dumps(spoilt).encode(), False, SHARE), operation.request, "x")
            check_media(request, Limits())
        except InvalidRequestError as error:
            found = [(fault.code, fault.path) for fault in error.errors]
        else:
            pytest.fail(f"{field.name} is not looked at")
        # The contract looks at a list up to the first file that is none; the limits look at every file.
        told = places if code in ("too_large_media", "out_of_range") else places[:1]
        assert found == [(code, place) for place in told][:20]


def test_a_bomb_is_refused_over_the_wire_in_both_encodings(serve: Serve) -> None:
    operation, field = next((op, f) for op, f in WITH_MEDIA if op.model_type == "detection")
    spec = ModelSpec(name="m", backend_cls=EchoBackend.of(operation.model_type))
    server = serve(spec, limits=Limits(max_pixels=1000))
    good = {field.wire: base64.b64encode(encoded(Image.new("RGB", (20, 20)), "PNG")).decode()}
    assert httpx.post(f"{server.url}/m/predict", json=good).status_code == 200
    big = encoded(Image.new("RGB", (40, 40)), "JPEG")
    answers = [
        httpx.post(f"{server.url}/m/predict", json={field.wire: base64.b64encode(big).decode()}),
        httpx.post(
            f"{server.url}/m/predict", content=msgspec.msgpack.encode({field.wire: big}), headers=PACKED
        ),
    ]
    items = {"requests": [good, {field.wire: base64.b64encode(big).decode()}]}
    batch = httpx.post(f"{server.url}/m/batch", json=items).json()["responses"]
    for problem in (*(answer.json() for answer in answers), batch[1]):
        assert (problem["status"], problem["code"]) == (422, "invalid")
        assert problem["errors"][0]["code"] == "too_large_media"
        assert problem["errors"][0]["path"] == f"/{field.wire}"
    assert "code" not in batch[0]


def test_members_of_any_kind_are_told_and_not_repeated_at_length(serve: Serve) -> None:
    server = serve()
    for body in ({"requests": [GOOD], 1: 2, "b": 3}, {"requests": [GOOD], "x" * 100_000: 1}):
        content = msgspec.msgpack.encode(body)
        answer = httpx.post(f"{server.url}/echo/batch", content=content, headers=PACKED)
        assert answer.json()["errors"][0]["code"] == "unknown_field"
        assert len(answer.content) < 5000
