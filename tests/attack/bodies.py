"""Requests with hostile bodies: those of the corpus, and any number that follow from a seed.

A file of the corpus is one request: `why` it is there, its `path` and `headers`, and its body as `text` or as
`base64`. What a fuzzer finds is printed in that form, so that it can be added.
"""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import zstandard

from codegen.bundle import Bundle, read_bundle
from tests.attack.mutations import LONGEST, Mutator, as_json, as_msgpack
from tests.contract.exchanges import BY_TYPE, TYPES, cases, packed

CORPUS = Path(__file__).parent / "corpus"
JSON_TYPE, MSGPACK_TYPE, EVENTS = "application/json", "application/msgpack", "text/event-stream"
#: Content types and encodings that are not those of the body, or not ours.
_FOREIGN_TYPES = [
    *(JSON_TYPE, MSGPACK_TYPE, "text/plain", "", "application/x-msgpack", "APPLICATION/JSON; charset=utf-16"),
    *("application/json;", ";", "multipart/form-data", "application/problem+json", "\xe9", "a" * 3000),
]
_FOREIGN_ENCODINGS = ["gzip", "zstd", "br", "deflate", "gzip, gzip", "identity", "GZIP", "*", "\xff"]
#: Headers that callers may send, at and beyond what is allowed.
_HEADERS: list[tuple[str, list[str]]] = [
    ("accept", [EVENTS, MSGPACK_TYPE, JSON_TYPE, "*/*", f"{MSGPACK_TYPE};q=nan", ";q=,,;", "\xff"]),
    ("accept-encoding", ["zstd", "zstd;q=0", "gzip", "zstd;q=1e9", "identity"]),
    (
        "x-sheaf-timeout",
        ["60", "1e-9", "0.001", "0", "-1", "nan", "inf", "1e400", "x", "\xb2", "1_0", "9" * 400],
    ),
    ("x-sheaf-priority", ["0", "5", "-10", "11", "1.5", "nan", "x", "\xb2", "9" * 5000]),
    ("x-request-id", ["r-1", "\xe9", "a" * 200, "11111111-2222-4333-8444-555555555555", "'\"{}"]),
    ("idempotency-key", ["k", "\xff", "a" * 500]),
    ("traceparent", ["00-" + "0" * 32 + "-" + "0" * 16 + "-00", "ff-x", "\xff"]),
]


@dataclass(frozen=True)
class Sent:
    """A request: where it goes, its headers, and its body, whole or in pieces of `chunk` bytes."""

    path: str
    headers: dict[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""
    chunk: int = 0
    why: str = ""

    @property
    def deployed(self) -> str:
        """The model that the URL names."""
        return self.path.split("/")[1]

    def raw(self) -> bytes:
        """The request as it goes over a connection that is kept."""
        framing = ("transfer-encoding", "chunked") if self.chunk else ("content-length", str(len(self.body)))
        lines = [("host", "127.0.0.1"), *self.headers.items(), framing]
        head = f"POST {self.path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines)
        return head.encode("latin-1") + b"\r\n" + (self._chunked() if self.chunk else self.body)

    def _chunked(self) -> bytes:
        starts = range(0, len(self.body), self.chunk)
        pieces = [self.body[start : start + self.chunk] for start in starts]
        return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"

    def document(self) -> str:
        """The request as a file of the corpus."""
        known = {"why": self.why, "path": self.path, "headers": self.headers}
        return json.dumps(
            known | ({"chunk": self.chunk} if self.chunk else {}) | _content(self.body), indent=2
        )


def _content(body: bytes) -> dict[str, str]:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        text = "\x00"
    return {"text": text} if text.isprintable() else {"base64": base64.b64encode(body).decode()}


@cache
def corpus() -> dict[str, Sent]:
    """The requests of the corpus by their names."""
    found = {
        path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(CORPUS.glob("*.json"))
    }
    return {name: _read(document) for name, document in found.items()}


def _read(document: dict[str, Any]) -> Sent:
    body = base64.b64decode(document.pop("base64")) if "base64" in document else document.pop("text").encode()
    return Sent(body=body, **document)


@cache
def bundle() -> Bundle:
    """The schema."""
    return read_bundle(Path(__file__).parents[2] / "schema")


@cache
def seeds() -> dict[str, list[Any]]:
    """Bodies to change, by the operation they are for: the schema's examples and cases, good and bad."""
    found = {
        name: [case.body for kind in ("valid", "valid", "valid", "invalid") for case in cases(name, kind)]
        for name in TYPES
    }
    for task in bundle().tasks:
        for operation in task.operations:
            name = task.model_type if operation.primary else f"{task.model_type}.{operation.name}"
            found[name] += bundle().schemas[operation.request].body["examples"]
    return found


def made(seed: int, number: int) -> Sent:
    """Request `number` of a seed."""
    change = Mutator(f"{seed} {number}")
    if change.chance(0.1):
        return _changed_again(change, change.pick(list(corpus().values())))
    name = change.pick(TYPES)
    operation = BY_TYPE[name]
    route = change.weighed({"typed": 7, "predict": 4, "stream": 5, "batch": 4})
    path = (operation if change.chance(0.97) else BY_TYPE[change.pick(TYPES)]).path.format(model_name=name)
    if route != "typed":
        path = f"/{name}/{route}"
    value = _value(change, name)
    if route == "batch" and change.chance(0.95):
        items = [value, *(_value(change, name) for _ in range(change.below(4)))]
        value = {"requests": items * change.pick([1, 1, 1, 20])}
        if change.chance(0.1):
            value = change.value(value, {})
    body = as_msgpack(value) if change.chance(0.35) else None
    if body is not None and isinstance(value, dict) and change.chance(0.7):
        body = _raw_members(operation.request, value) or body
    media = JSON_TYPE if body is None else MSGPACK_TYPE
    if body is None:
        body = as_json(value, ascii_only=change.chance(0.6))
    headers = {"content-type": media}
    if route == "stream" and change.chance(0.8):
        headers["accept"] = EVENTS
    return _wrapped(change, path, headers, body)


def _value(change: Mutator, name: str) -> Any:
    """A body of an operation with none to a few places changed."""
    value, other = change.pick(seeds()[name]), change.pick(seeds()[change.pick(TYPES)])
    for _ in range(change.weighed({0: 9, 1: 6, 2: 3, 5: 1})):
        value = change.value(value, other)
    return value


def _raw_members(contract: Any, value: dict[str, Any]) -> bytes | None:
    """MessagePack with tensors and files as raw bytes."""
    try:
        return packed(contract, value)
    except (OverflowError, UnicodeEncodeError, RecursionError):
        return None


def _wrapped(change: Mutator, path: str, headers: dict[str, str], body: bytes) -> Sent:
    """The request, its bytes changed in places, compressed or not, with headers that are true or not."""
    other = as_json(change.pick(seeds()[change.pick(TYPES)]), ascii_only=True)
    body = body[:LONGEST]
    for _ in range(change.weighed({0: 12, 1: 3, 2: 1, 6: 1})):
        body = change.content(body, other)
    encoding = change.weighed({"": 8, "gzip": 1, "zstd": 1})
    if encoding:
        body = gzip.compress(body, 1, mtime=0) if encoding == "gzip" else zstandard.compress(body, 1)
        headers["content-encoding"] = encoding
        if change.chance(0.4):
            body = change.content(body, other)
    if change.chance(0.05):
        headers["content-type"] = change.pick(_FOREIGN_TYPES)
    if change.chance(0.05):
        headers["content-encoding"] = change.pick(_FOREIGN_ENCODINGS)
    for name, options in _HEADERS:
        if name not in headers and change.chance(0.06):
            headers[name] = change.pick(options)
    return Sent(path, headers, body, change.weighed({0: 9, 1 + len(body) // 3: 1}))


def _changed_again(change: Mutator, known: Sent) -> Sent:
    """A request of the corpus to any model, changed a little."""
    name = change.pick(TYPES)
    path = f"/{name}/{change.pick(['predict', 'stream', 'batch'])}"
    return _wrapped(change, path, dict(known.headers), known.body)


def plain(encoding: str, body: bytes) -> bytes:
    """What an answer holds, by its content encoding."""
    if encoding == "zstd":
        return zstandard.ZstdDecompressor().decompressobj().decompress(body)
    return zlib.decompress(body, 31) if encoding == "gzip" else body
