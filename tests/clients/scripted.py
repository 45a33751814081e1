"""Clients whose server is a script: answers in turn, and a record of what was asked."""

from __future__ import annotations

import json
from typing import Any

import httpx

from sheaf_client import Sheaf
from sheaf_client.errors import BY_CODE

ID = "11111111-2222-4333-8444-555555555555"
CALL: dict[str, Any] = {"model": "m", "request_id": ID, "history": [1.0], "horizon": 1, "frequency": "1h"}
ANSWER: dict[str, Any] = {
    "request_id": ID,
    "model_type": "time_series",
    "model_name": "m",
    "mean": [1.0],
    "horizon": 1,
    "frequency": "1h",
}
EVENTS = (
    b'event: progress\ndata: {"type":"progress","step":1,"total_steps":2,"done":false}\n\n',
    f"event: result\ndata: {json.dumps({'type': 'result', 'done': True, **ANSWER})}\n\n".encode(),
)


def answers(*given: httpx.Response | Exception) -> tuple[httpx.MockTransport, list[httpx.Request]]:
    """A server that gives these answers in turn and remembers what it was asked."""
    seen: list[httpx.Request] = []
    turn = iter(given)

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        answered = next(turn)
        if isinstance(answered, Exception):
            raise answered
        return answered

    return httpx.MockTransport(answer), seen


def scripted(*given: httpx.Response | Exception, **settings: Any) -> tuple[Sheaf, list[httpx.Request]]:
    transport, seen = answers(*given)
    return Sheaf("http://x", http_client=httpx.Client(transport=transport), **settings), seen


def ok() -> httpx.Response:
    return httpx.Response(200, json=ANSWER, headers={"x-request-id": "r-1"})


def refusal(code: str) -> httpx.Response:
    document = BY_CODE[code]("No.").to_problem().model_dump_json()
    return httpx.Response(BY_CODE[code].status, content=document, headers={"retry-after": "0"})
