"""Answers to another request are not taken; frames of streams say in their data what they are."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest

from sheaf.api.time_series import TimeSeriesRequest
from sheaf_client import (
    AsyncSheaf,
    BadResponseError,
    ProgressEvent,
    ResultEvent,
    Sheaf,
    UnknownEvent,
)
from sheaf_client._msgpack import pack
from sheaf_client.contracts.time_series import TimeSeriesResponse
from sheaf_client.errors import InternalServerError, InvalidRequestError, OverloadedError
from tests.clients.scripted import ANSWER, CALL, ID, answers, scripted

OTHER = "99999999-2222-4333-8444-555555555555"
MINE = {**ANSWER, "request_id": ID.upper()}
FOREIGN = {**ANSWER, "request_id": OTHER}


def packed(answer: dict[str, Any]) -> httpx.Response:
    content = pack(TimeSeriesResponse.model_validate(answer))
    return httpx.Response(200, content=content, headers={"content-type": "application/msgpack"})


def plain(answer: dict[str, Any]) -> httpx.Response:
    return httpx.Response(200, json=answer)


def frames(*data: Any) -> httpx.Response:
    """A stream without one `event:` line."""
    return httpx.Response(200, content="".join(f"data: {json.dumps(each)}\n\n" for each in data).encode())


def streamed(answer: dict[str, Any]) -> httpx.Response:
    return frames({"type": "result", "done": True, **answer})


def ask(response: httpx.Response) -> Any:
    return scripted(response)[0].time_series.forecast(**CALL)


def ask_awaited(response: httpx.Response) -> Any:
    client = AsyncSheaf("http://x", http_client=httpx.AsyncClient(transport=answers(response)[0]))
    return asyncio.run(client.time_series.forecast(**CALL))


def ask_raw(response: httpx.Response) -> Any:
    return scripted(response)[0].with_raw_response.time_series.forecast(**CALL).parse()


def stream(response: httpx.Response) -> Any:
    return scripted(response)[0].time_series.stream(**CALL).final()


def stream_awaited(response: httpx.Response) -> Any:
    async def read() -> Any:
        client = AsyncSheaf("http://x", http_client=httpx.AsyncClient(transport=answers(response)[0]))
        return await client.time_series.stream(**CALL).final()

    return asyncio.run(read())


@pytest.mark.parametrize(
    ("send", "write"),
    [
        *[(send, write) for send in (ask, ask_awaited, ask_raw) for write in (plain, packed)],
        *[(send, streamed) for send in (stream, stream_awaited)],
    ],
)
def test_an_answer_to_another_request_is_not_returned(
    send: Callable[[httpx.Response], Any], write: Callable[[dict[str, Any]], httpx.Response]
) -> None:
    assert send(write(MINE)).mean == [1.0]
    with pytest.raises(BadResponseError, match=OTHER):
        send(write(FOREIGN))


def test_each_answer_of_a_batch_is_that_of_its_request() -> None:
    one, two = (
        TimeSeriesRequest(model_name="m", history=[1.0], horizon=1, frequency="1h", request_id=uuid4())
        for _ in range(2)
    )

    def answer(request: TimeSeriesRequest) -> dict[str, Any]:
        return {**ANSWER, "request_id": str(request.request_id)}

    def refused(request: TimeSeriesRequest | None) -> dict[str, Any]:
        request_id = None if request is None else str(request.request_id)
        return InvalidRequestError("No.", request_id=request_id).to_problem().model_dump(mode="json")

    def send(*items: dict[str, Any]) -> list[Any]:
        client, _ = scripted(httpx.Response(200, json={"responses": list(items)}))
        return client.time_series.forecast_many([one, two])

    assert [outcome.request_id for outcome in send(answer(one), answer(two))] == [
        one.request_id,
        two.request_id,
    ]
    for problem in (refused(two), refused(None)):
        assert isinstance(send(answer(one), problem)[1], InvalidRequestError)
    for items in ((answer(two), answer(one)), (answer(one), answer(one)), (answer(one), refused(one))):
        with pytest.raises(BadResponseError):
            send(*items)


def test_frames_say_in_their_data_what_they_are() -> None:
    client, _ = scripted(
        frames(
            {"type": "progress", "step": 1, "total_steps": 2, "done": False},
            {"type": "thought", "text": "hm"},
            {"type": "result", "done": True, **ANSWER},
        )
    )
    first, second, third = client.time_series.stream(**CALL)
    assert isinstance(first, ProgressEvent)
    assert (type(second), second.type) == (UnknownEvent, "thought")
    assert isinstance(third, ResultEvent)
    assert third.response.mean == [1.0]


def test_an_error_is_told_by_a_text_or_by_a_problem() -> None:
    told = {"type": "error", "done": True, "error": "CUDA error: out of memory"}
    with pytest.raises(InternalServerError, match="out of memory") as caught:
        stream(frames({"type": "progress", "step": 1, "total_steps": 2}, told))
    assert caught.value.request_id == ID
    problem = OverloadedError("Later.").to_problem().model_dump(mode="json")
    with pytest.raises(OverloadedError, match="Later"):
        stream(frames({"type": "error", "problem": problem, "error": "another text"}))


@pytest.mark.parametrize(
    "data", [[1], 3, "result", None, {"type": "error"}, {"type": "error", "error": 5}, {"type": "result"}]
)
def test_a_frame_that_says_nothing_sensible_is_a_bad_response(data: Any) -> None:
    with pytest.raises(BadResponseError):
        stream(frames(data))


@pytest.mark.parametrize("body", [b"data: \xff\xfe\n\n", b"event: result\ndata: {\n\n"])
def test_bytes_that_are_no_text_are_a_bad_response(body: bytes) -> None:
    with pytest.raises(BadResponseError):
        stream(httpx.Response(200, content=body))


def test_a_broken_encoding_is_a_bad_response() -> None:
    def broken(request: httpx.Request) -> httpx.Response:
        headers = {"content-encoding": "gzip"}
        return httpx.Response(200, headers=headers, stream=httpx.ByteStream(b"this is no gzip"))

    client = Sheaf("http://x", http_client=httpx.Client(transport=httpx.MockTransport(broken)))
    with pytest.raises(BadResponseError):
        client.time_series.forecast(**CALL)
