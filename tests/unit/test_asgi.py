"""The transports that call an ASGI app in this process: event by event, from any task; leaving is told."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import httpx
import pytest

from sheaf_client._asgi import ASGIApp, ASGITransport, AsyncASGITransport

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}


def part(body: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


async def echo(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
    message = await receive()
    await send(START)
    await send(part(scope["path"].encode() + b" "))
    await send(part(message["body"], more=False))


class Patient:
    """Sends one part, then waits until the client has left."""

    def __init__(self, *, answers: bool) -> None:
        self.answers = answers
        self.began = asyncio.Event()
        self.left = asyncio.Event()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        if self.answers:
            await send(START)
            await send(part(b"first"))
        self.began.set()
        assert (await receive())["type"] == "http.disconnect"
        self.left.set()


def client(app: ASGIApp) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=AsyncASGITransport(app), base_url="http://app")


def test_synchronous_calls_are_answered() -> None:
    with httpx.Client(transport=ASGITransport(echo), base_url="http://app") as sync:
        assert [sync.post("/a", content=text).text for text in ("x", "y")] == ["/a x", "/a y"]


UNCLOSED = """
import os, sys
import httpx
from sheaf_client._asgi import ASGITransport
from tests.unit.test_asgi import Patient, echo

held = httpx.Client(transport=ASGITransport(echo), base_url="http://app")
assert held.post("/a", content="x").text == "/a x"
"""
IN_A_STREAM = """
response = httpx.Client(transport=ASGITransport(Patient(answers=True))).send(
    httpx.Request("POST", "http://app"), stream=True
)
assert next(response.iter_bytes()) == b"first"

def read():
    try:
        yield
    finally:
        response.close()

reading = read()
next(reading)
"""
IN_A_FORK = """
child = os.fork()
if child:
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
held = None
"""


@pytest.mark.parametrize(
    "rest",
    [
        "",
        IN_A_STREAM,
        pytest.param(IN_A_FORK, marks=pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")),
    ],
    ids=["idle", "in a stream", "in a fork"],
)
def test_a_client_that_nobody_closes_keeps_no_program_from_its_end(rest: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", UNCLOSED + rest], check=False, capture_output=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_thread_of_a_client_ends_with_its_last_user() -> None:
    before = set(threading.enumerate())
    sync = httpx.Client(transport=ASGITransport(echo), base_url="http://app")
    assert sync.post("/a").text == "/a "
    (thread,) = set(threading.enumerate()) - before
    del sync
    gc.collect()
    thread.join(30)
    assert not thread.is_alive()


def test_calls_and_the_close_may_come_from_different_tasks() -> None:
    async def scenario() -> list[str]:
        http = client(echo)
        answers = await asyncio.gather(*(asyncio.create_task(http.post("/a", content=c)) for c in "xyz"))
        await http.aclose()
        return [answer.text for answer in answers]

    assert asyncio.run(scenario()) == ["/a x", "/a y", "/a z"]


def test_a_part_arrives_before_the_next_is_sent_and_leaving_is_told() -> None:
    async def scenario() -> bytes:
        app = Patient(answers=True)
        async with client(app) as http:
            async with http.stream("GET", "/") as response:
                first = await anext(response.aiter_raw())
                assert not app.left.is_set()
            await asyncio.wait_for(app.left.wait(), 10)
        return first

    assert asyncio.run(scenario()) == b"first"


def test_a_caller_cancelled_before_the_answer_has_left() -> None:
    async def scenario() -> None:
        app = Patient(answers=False)
        async with client(app) as http:
            call = asyncio.create_task(http.get("/"))
            await asyncio.wait_for(app.began.wait(), 10)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await asyncio.wait_for(app.left.wait(), 10)

    asyncio.run(scenario())


def test_closing_ends_what_still_runs() -> None:
    async def scenario() -> bool:
        app = Patient(answers=True)
        http = client(app)
        request = http.build_request("GET", "/")
        await http.send(request, stream=True)
        await http.aclose()
        return app.left.is_set()

    assert asyncio.run(scenario()) is False


def test_an_app_that_fails_is_a_broken_connection() -> None:
    async def broken(_scope: object, _receive: Receive, _send: Send) -> None:
        raise KeyError("secret")

    async def scenario() -> None:
        async with client(broken) as http:
            await http.get("/")

    with pytest.raises(httpx.RemoteProtocolError, match="without a response") as caught:
        asyncio.run(scenario())
    assert isinstance(caught.value.__cause__, KeyError)
