"""Fuzzes the Python client's readers by answers of a hostile server, which follow from a seed.

Whatever comes, a call returns an answer or raises a `SheafError`: nothing else gets out, and nothing waits.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import httpx

from sheaf_client import SheafError
from sheaf_client._http import HTTPTransport
from sheaf_client._msgpack import pack
from sheaf_client._transport import Call, CallOptions, ManyCall
from sheaf_client.contracts.base import BaseRequest
from sheaf_client.errors import BY_CODE
from tests.attack.mutations import Mutator, as_json, as_msgpack
from tests.contract.echo import EchoBackend
from tests.contract.exchanges import BY_TYPE, TYPES, cases

JSON_TYPE, MSGPACK_TYPE, EVENTS = "application/json", "application/msgpack", "text/event-stream"
#: Seconds after which a call gives up by itself: a server that asks for patience gets that much.
LIMIT = 0.2
_HEADERS: list[tuple[str, list[bytes]]] = [
    (
        "retry-after",
        [b"0", b"1e9", b"\xb2", b"9" * 400, b"-1", b"Mon, 30 Nov 2026 13:50:51 GMT", b"nan", b"\xff"],
    ),
    (
        "content-type",
        [b"", b"\xff", b"application/json; charset=utf-16", b"text/html", b"application/msgpackx"],
    ),
    ("content-encoding", [b"gzip", b"zstd", b"br", b"deflate", b"x", b"\xff", b"gzip, gzip"]),
    ("x-request-id", [b"", b"\xff", b"a" * 9000]),
    ("location", [b"http://127.0.0.1:1/", b"//", b"\xff"]),
]


@dataclass(frozen=True)
class Scripted:
    """A call, and the answer it gets."""

    name: str
    call: str
    status: int
    headers: list[tuple[str, bytes]]
    body: bytes
    chunk: int

    def response(self) -> httpx.Response:
        return httpx.Response(
            self.status, headers=[(k.encode(), v) for k, v in self.headers], content=self._parts()
        )

    def _parts(self) -> Iterator[bytes]:
        for start in range(0, len(self.body), self.chunk):
            yield self.body[start : start + self.chunk]

    def __str__(self) -> str:
        body = base64.b64encode(self.body).decode()
        head = f"{self.call} of {self.name}, answered {self.status} {self.headers}"
        return f"{head} by pieces of {self.chunk}: {body}"


@cache
def _request(name: str) -> BaseRequest:
    body = cases(name, "valid")[0].body
    return BY_TYPE[name].request.model_validate_json(json.dumps(body), strict=True, by_name=False)


@cache
def _answer(name: str) -> Any:
    return EchoBackend.answer(_request(name))


def scripted(seed: int, number: int) -> Scripted:
    """Answer `number` of a seed."""
    change = Mutator(f"answer {seed} {number}")
    name, call = change.pick(TYPES), change.weighed({"call": 5, "call_many": 3, "stream": 5, "models": 1})
    status = 200 if change.chance(0.85) else change.pick([101, 204, 302, 400, 404, 429, 500, 503, 599, 999])
    packed = change.chance(0.3) and call in ("call", "call_many")
    value = _document(change, name, call, status)
    others = [_answer(name).model_dump(mode="json"), _problem(change, name), {"type": "error", "error": 5}]
    for _ in range(change.weighed({0: 4, 1: 6, 3: 2})):
        value = change.value(value, change.pick(others))
    body = as_msgpack(value) if packed else None
    if packed and change.chance(0.5):
        body = pack([_answer(name)], key="responses") if call == "call_many" else pack(_answer(name))
    media = JSON_TYPE if body is None else MSGPACK_TYPE
    if body is None and call == "stream" and status == 200:
        media, body = EVENTS, _events(change, value)
    body = body or as_json(value, ascii_only=change.chance(0.6))
    for _ in range(change.weighed({0: 3, 1: 3, 4: 1})):
        body = change.content(body, b'{"type":"result"}\n\n')
    headers = {"content-type": media.encode()}
    if change.chance(0.1):
        headers["content-encoding"], body = b"gzip", gzip.compress(body, 1, mtime=0)
        body = change.content(body, body) if change.chance(0.5) else body
    for header, options in _HEADERS:
        if change.chance(0.06):
            headers[header] = change.pick(options)
    return Scripted(name, call, status, list(headers.items()), body, change.pick([1, 7, 4096, 2**20]))


def _document(change: Mutator, name: str, call: str, status: int) -> Any:
    """What such a call is answered by, before anything is changed."""
    if status != 200:
        return _problem(change, name)
    answer = _answer(name).model_dump(mode="json")
    if call == "call_many":
        return {"responses": [answer]}
    if call == "models":
        info = {"name": name, "model_type": name.partition(".")[0], "backend": "echo", "status": "ready"}
        return {"models": [info]}
    if call == "stream":
        steps = [event.model_dump(mode="json") for event in EchoBackend.progress(_request(name))]
        last = {"type": "result", "done": True, **answer}
        if change.chance(0.3):
            last = {"type": "error", "problem": _problem(change, name), "error": "x"}
        return [*steps, last]
    return answer


def _problem(change: Mutator, name: str) -> Any:
    kind = BY_CODE[change.pick(sorted(BY_CODE))]
    error = kind("No.", request_id=str(_request(name).request_id), retry_after=change.pick([None, 0, 1e308]))
    return error.to_problem().model_dump(mode="json")


def _events(change: Mutator, value: Any) -> bytes:
    """The values as events, each in one of the forms that the standard has."""
    end = change.pick(["\n", "\n", "\r\n", "\r"])
    parts: list[str] = []
    for item in value if isinstance(value, list) else [value]:
        kind = item.get("type", "x") if isinstance(item, dict) else "result"
        data = as_json(item, ascii_only=True).decode()
        lines = [f"event: {kind}"] if change.chance(0.7) else [": a comment", "retry: 5", "id"]
        parts += [*lines, f"data:{data}" if change.chance(0.3) else f"data: {data}", "", ""][:-1]
    return (end.join(parts) + end + end).encode(errors="surrogatepass")


def ask(given: Scripted) -> None:
    """Make the call; raises what is no `SheafError`."""
    calls: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        return given.response()

    options = CallOptions(timeout=LIMIT, max_retries=1)
    operation, request = BY_TYPE[given.name], _request(given.name)
    client = httpx.Client(transport=httpx.MockTransport(answer))
    transport = HTTPTransport(client, make=None, base_url="http://x")
    try:
        match given.call:
            case "call":
                returned = transport.call(Call(operation, request, options)).request_id
                assert returned == request.request_id, "another's answer"
            case "call_many":
                transport.call_many(ManyCall(operation, [request], options))
            case "stream":
                for _ in transport.stream(Call(operation, request, options)):
                    pass
            case _:
                transport.models(options)
    except SheafError as error:
        str(error)  # people see it
    finally:
        client.close()
    assert len(calls) <= 2, "asked more often than it may"


def fuzz_client(seed: int, numbers: Sequence[int]) -> list[str]:
    """What was wrong with how the client took answers of a seed, each with the answer."""
    wrong: list[str] = []
    for number in numbers:
        given = scripted(seed, number)
        try:
            ask(given)
        except Exception as error:  # noqa: BLE001 - that is what is looked for
            wrong.append(f"{type(error).__name__}: {str(error)[:300]}\n  {given}")
    return wrong
