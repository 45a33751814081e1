"""A broken file is refused with its place: before it is sent, in this process, and by servers."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import msgspec
import pytest

from sheaf.embedded import EmbeddedServer
from sheaf.spec import ModelSpec
from sheaf_client import Sheaf
from sheaf_client.errors import InvalidRequestError
from tests.contract.echo import EchoBackend
from tests.contract.files import others, whole

FILES = {name: data for name, _, data, _ in whole()} | {title: data for title, data, _ in others()}
GOOD = FILES["rgb.png"]
SPECS = [ModelSpec(name=t, backend_cls=EchoBackend.of(t)) for t in ("depth", "video", "audio")]
#: The contract, its field and what it is given; then the place of the fault, and what is said of it.
BROKEN: list[tuple[str, str, Any, str, str]] = [
    ("depth", "image", b"not an image, to be sure", "/image_b64", "this is text"),
    ("depth", "image", GOOD[:20], "/image_b64", "cut off in its header"),
    ("depth", "image", GOOD[:-14], "/image_b64", "cut off before its end"),
    ("depth", "image", FILES["JPEG, then junk"], "/image_b64", "cut off in its header"),
    ("depth", "image", FILES["baseline.jpg"][:-2], "/image_b64", "cut off before its end"),
    ("depth", "image", FILES["a GIF"], "/image_b64", "this is a GIF image"),
    ("video", "frames", [GOOD, GOOD, GOOD, FILES["an HTML page"]], "/frames_b64/3", "this is an HTML page"),
    ("audio", "audio", FILES["JSON"], "/audio_b64", "this is JSON"),
    ("audio", "audio", GOOD, "/audio_b64", "this is a PNG image"),
    ("audio", "audio", FILES["pcm.wav"][:-100], "/audio_b64", "cut off 100 bytes before its end"),
    ("audio", "audio", FILES["aac.m4a"][:900], "/audio_b64", "cut off before its end"),
]
broken = pytest.mark.parametrize(("contract", "field", "given", "place", "said"), BROKEN)


def each(value: bytes | list[bytes], change: Callable[[bytes], Any]) -> Any:
    return [change(item) for item in value] if isinstance(value, list) else change(value)


def told(faults: Any, place: str, said: str) -> bool:
    (fault,) = faults
    return (fault["code"], fault["path"]) == ("bad_format", place) and said in fault["message"]


def call(client: Sheaf, contract: str, **fields: Any) -> Any:
    resource = {"depth": client.depth.estimate, "video": client.video.infer, "audio": client.audio.transcribe}
    return resource[contract](model=contract, **fields)


@broken
def test_it_is_refused_before_it_is_sent(
    contract: str, field: str, given: Any, place: str, said: str
) -> None:
    sent: list[httpx.Request] = []
    transport = httpx.MockTransport(lambda request: sent.append(request) or httpx.Response(500))
    client = Sheaf("http://127.0.0.1:9", http_client=httpx.Client(transport=transport))
    with client, pytest.raises(InvalidRequestError) as caught:
        call(client, contract, **{field: given})
    assert told([fault.model_dump() for fault in caught.value.errors], place, said)
    assert sent == []


@broken
def test_a_server_refuses_it_in_every_form(
    server: EmbeddedServer, contract: str, field: str, given: Any, place: str, said: str
) -> None:
    text = {f"{field}_b64": each(given, lambda data: base64.b64encode(data).decode())}
    raw = {f"{field}_b64": given}
    packed = {"content-type": "application/msgpack"}
    for route in ("predict", "stream"):
        for answer in (
            httpx.post(f"{server.url}/{contract}/{route}", json=text),
            httpx.post(
                f"{server.url}/{contract}/{route}", content=msgspec.msgpack.encode(raw), headers=packed
            ),
        ):
            assert answer.status_code == 422
            assert told(answer.json()["errors"], place, said), answer.text
    good = {f"{field}_b64": each(given, lambda _: base64.b64encode(sound(field)).decode())}
    items = httpx.post(f"{server.url}/{contract}/batch", json={"requests": [good, text, good]}).json()
    assert ["code" in item for item in items["responses"]] == [False, True, False]
    assert told(items["responses"][1]["errors"], place, said)


def sound(field: str) -> bytes:
    return FILES["pcm.wav"] if field == "audio" else GOOD


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer(SPECS, port=0) as server:
        yield server


@pytest.fixture(scope="module")
def local() -> Iterator[Sheaf]:
    with Sheaf.local(SPECS) as client:
        yield client


@broken
def test_it_is_refused_in_this_process(
    local: Sheaf, contract: str, field: str, given: Any, place: str, said: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        call(local, contract, **{field: given})
    assert told([fault.model_dump() for fault in caught.value.errors], place, said)


def test_what_is_whole_is_taken_in_every_way(local: Sheaf, server: EmbeddedServer) -> None:
    with Sheaf(server.url) as remote:
        for client in (local, remote):
            for name, kind, data, _ in whole():
                answer = (
                    client.depth.estimate(model="depth", image=data)
                    if kind == "image"
                    else client.audio.transcribe(model="audio", audio=data)
                )
                assert answer.model_name in ("depth", "audio"), name


def test_text_of_a_file_is_read_once() -> None:
    """The bytes that are looked at are those that the field holds, without a copy."""
    from sheaf_client.contracts.depth import DepthRequest

    text = base64.b64encode(GOOD).decode()
    request = DepthRequest.model_validate_json(json.dumps({"model_name": "m", "image_b64": text}))
    assert request.image.bytes == GOOD
    again = DepthRequest(model_name="m", image=request.image)
    assert again.image.bytes is request.image.bytes
