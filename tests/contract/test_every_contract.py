"""Every contract on every target: valid requests get what the echo answers, invalid ones their very faults.

Each test runs over all cases of a model type and says which of them differ.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from itertools import chain, zip_longest
from typing import Any

import httpx
import pytest

from sheaf_client import AsyncSheaf, ResultEvent, Sheaf
from sheaf_client._msgpack import MSGPACK_TYPE, unpack, validate_unpacked
from sheaf_client.errors import InvalidRequestError
from tests.contract.echo import EchoBackend, specs
from tests.contract.exchanges import (
    BY_TYPE,
    RESOURCE,
    STREAMING,
    TYPES,
    Case,
    Outcome,
    cases,
    differences,
    expected,
    in_turn,
    outcome,
    packed,
    refused,
    settled,
    streaming,
    valid,
    wire,
)
from tests.contract.targets import TARGETS, open_async

RAY = pytest.param("ray", marks=pytest.mark.ray)
every_target = pytest.mark.parametrize("client", ["local", "asgi", "http", RAY], indirect=True)
every_server = pytest.mark.parametrize("client", ["asgi", "http", RAY], indirect=True)
every_type = pytest.mark.parametrize("model_type", TYPES)
every_stream = pytest.mark.parametrize("model_type", STREAMING)
encodings = pytest.mark.parametrize("encoding", ["json", "msgpack"])


@pytest.fixture(scope="module")
def client(request: pytest.FixtureRequest) -> Iterator[Sheaf]:
    with TARGETS[request.param](specs()) as running:
        yield running


def resource(client: Sheaf | AsyncSheaf, model_type: str) -> Any:
    return getattr(client, RESOURCE[model_type])


def method(client: Sheaf | AsyncSheaf, model_type: str, suffix: str = "") -> Any:
    return getattr(resource(client, model_type), BY_TYPE[model_type].name + suffix)


def stream_of(client: Sheaf | AsyncSheaf, model_type: str) -> Any:
    return getattr(resource(client, model_type), streaming(model_type))


@every_target
@every_type
def test_a_call_gets_the_answer_of_its_request(client: Sheaf, model_type: str) -> None:
    call, sent = method(client, model_type), valid(model_type)
    found = {i: outcome(lambda r=request: call(r)) for i, request in enumerate(sent)}
    assert differences(found, in_turn(sent)) == {}
    last = next(r for r in reversed(sent) if isinstance(expected(r), dict))
    answer = call(last)
    assert type(answer) is BY_TYPE[model_type].response
    assert answer.metadata.usage.batch_size >= 1


@every_target
@every_type
def test_keywords_say_the_same_as_a_request(client: Sheaf, model_type: str) -> None:
    call, sent = method(client, model_type), cases(model_type, "valid")
    found = {case.name: outcome(lambda c=case: call(**c.body)) for case in sent}
    wanted = dict(zip(found, map(expected, valid(model_type)), strict=False))
    assert differences(found, wanted) == {}


@every_target
@every_type
def test_awaited_calls_at_once_each_get_their_own_answer(client: Sheaf, model_type: str) -> None:
    sent = valid(model_type)

    async def run() -> dict[Any, Any]:
        async with open_async(client, [s for s in specs() if s.name == model_type]) as awaited:
            calls = [method(awaited, model_type)(request) for request in sent]
            answers = await asyncio.gather(*calls, return_exceptions=True)
        return dict(enumerate(map(settled, answers)))

    assert differences(asyncio.run(run()), in_turn(sent)) == {}


@every_target
@every_type
def test_many_in_one_call_are_answered_or_refused_each(client: Sheaf, model_type: str) -> None:
    sent = [*valid(model_type)[:3], refused(model_type), *valid(model_type)[3:]]

    async def run() -> list[Any]:
        async with open_async(client, [s for s in specs() if s.name == model_type]) as awaited:
            return await method(awaited, model_type, "_many")(sent)

    for answers in (method(client, model_type, "_many")(sent), asyncio.run(run())):
        assert differences(dict(enumerate(map(settled, answers))), in_turn(sent)) == {}


@every_target
@every_stream
def test_a_stream_tells_its_steps_and_ends_with_the_answer(client: Sheaf, model_type: str) -> None:
    sent = [request for request in valid(model_type) if isinstance(expected(request), dict)]
    told: list[list[Any]] = []
    for request in sent:
        with stream_of(client, model_type)(request) as stream:
            told.append(list(stream))

    async def run() -> list[list[Any]]:
        events: list[list[Any]] = []
        async with open_async(client, [s for s in specs() if s.name == model_type]) as awaited:
            for request in sent:
                async with stream_of(awaited, model_type)(request) as stream:
                    events.append([event async for event in stream])
        return events

    for events in (told, asyncio.run(run())):
        for request, (*steps, last) in zip(sent, events, strict=True):
            assert steps == EchoBackend.progress(request)
            assert {type(step) for step in steps} == {BY_TYPE[model_type].progress}
            assert isinstance(last, ResultEvent)
            assert wire(last.response) == expected(request)


@pytest.mark.parametrize("model_type", STREAMING)
def test_the_streams_tell_of_every_field_that_an_event_may_carry(model_type: str) -> None:
    """What the tests of streams compare: no field of an operation's own event is empty in all of them."""
    steps = [step for request in valid(model_type) for step in EchoBackend.progress(request)]
    fields = set(BY_TYPE[model_type].progress.model_fields)

    def told(value: Any) -> bool:
        return value is not None and not (isinstance(value, list | dict) and not value)

    assert {name for step in steps for name in fields if told(getattr(step, name))} == fields


@every_target
@every_stream
def test_a_stream_of_a_refused_request_raises(client: Sheaf, model_type: str) -> None:
    found = outcome(lambda: stream_of(client, model_type)(refused(model_type)).final())
    assert found == expected(refused(model_type))


@every_server
@every_type
@pytest.mark.parametrize("binary", ["always", "never"])
def test_raw_bytes_and_base64_say_the_same(client: Sheaf, model_type: str, binary: Any) -> None:
    call, sent = method(client.with_options(binary=binary), model_type), valid(model_type)
    found = {i: outcome(lambda r=request: call(r)) for i, request in enumerate(sent)}
    assert differences(found, in_turn(sent)) == {}


#: What the Python client takes as people hold it: flags in a table are sent as the numbers 0 and 1.
TAKEN = {"invalid/context_X_flag", "invalid/context_y_flag", "invalid/query_X_flag"}


@every_type
def test_the_python_client_refuses_before_it_sends(model_type: str) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise AssertionError("it was sent")

    found_invalid = [case for case in cases(model_type, "invalid") if isinstance(case.body, dict)]
    invalid = [case for case in found_invalid if case.name not in TAKEN]
    transport = httpx.MockTransport(answer)
    client = Sheaf("http://server", http_client=httpx.Client(transport=transport, base_url="http://server"))
    call = method(client, model_type)
    found = {case.name: outcome(lambda c=case: call(**c.body)) for case in invalid}
    assert differences(found, {case.name: case.faults for case in invalid}) == {}

    async def run() -> dict[str, Any]:
        http = httpx.AsyncClient(transport=transport, base_url="http://server")
        call = method(AsyncSheaf("http://server", http_client=http), model_type)
        outcomes = await asyncio.gather(*(call(**case.body) for case in invalid), return_exceptions=True)
        return {case.name: settled(given) for case, given in zip(invalid, outcomes, strict=True)}

    assert differences(asyncio.run(run()), {case.name: case.faults for case in invalid}) == {}


def bare(client: Sheaf) -> httpx.Client:
    """The HTTP client of a target, without what ours adds to it."""
    return client.transport._connections.current()


def encoded(model_type: str, body: Any, encoding: str) -> dict[str, Any]:
    if encoding == "json":
        text = json.dumps(body).replace("Infinity", "1e999")  # as the cases write it; JSON has no other way
        return {"content": text, "headers": {"content-type": "application/json"}}
    content = packed(BY_TYPE[model_type].request, body)
    return {"content": content, "headers": {"content-type": MSGPACK_TYPE, "accept": MSGPACK_TYPE}}


def sendable(given: list[Case], model_type: str, encoding: str) -> list[Case]:
    """The cases that an encoding can carry: MessagePack has no integers of more than 64 bits."""

    def fits(case: Case) -> bool:
        try:
            encoded(model_type, case.body, encoding)
        except OverflowError:
            return False
        return True

    return [case for case in given if fits(case)]


@every_server
@encodings
@every_type
def test_the_server_refuses_every_invalid_body_with_its_faults(
    client: Sheaf, model_type: str, encoding: str
) -> None:
    path = BY_TYPE[model_type].path.replace("{model_name}", model_type)
    invalid = sendable(cases(model_type, "invalid"), model_type, encoding)
    found: dict[str, Any] = {}
    for case in invalid:
        response = bare(client).post(path, **encoded(model_type, case.body, encoding))
        if response.is_success:
            answer = response.json() if encoding == "json" else unpack(response.content)
        else:
            assert response.status_code == 422, (case.name, response.text)
            assert response.headers["content-type"] == "application/problem+json"
            answer = response.json()
            assert answer["code"] == InvalidRequestError.code
        found[case.name] = read(model_type, answer)
    assert differences(found, {case.name: case.over_http(model_type) for case in invalid}) == {}


def read(model_type: str, answer: dict[str, Any]) -> Outcome:
    """The outcome in an answer or a problem, from either encoding."""
    if "model_type" not in answer:
        return sorted((fault["code"], fault["path"]) for fault in answer["errors"])
    return wire(validate_unpacked(BY_TYPE[model_type].response, answer, strict=False))


@every_server
@encodings
@every_type
def test_a_batch_of_sound_and_faulty_bodies_settles_each(
    client: Sheaf, model_type: str, encoding: str
) -> None:
    sound, faulty = cases(model_type, "valid"), sendable(cases(model_type, "invalid"), model_type, encoding)
    mixed: list[Case] = [case for case in chain(*zip_longest(sound, faulty)) if case is not None]
    contract = BY_TYPE[model_type].request
    if encoding == "json":
        sent = encoded(model_type, {"requests": [case.body for case in mixed]}, encoding)
    else:
        bodies = b"".join(packed(contract, case.body) for case in mixed)
        count = b"\xdd" + len(mixed).to_bytes(4, "big")  # an array of so many items
        headers = {"content-type": MSGPACK_TYPE, "accept": MSGPACK_TYPE}
        sent = {"content": b"\x81\xa8requests" + count + bodies, "headers": headers}
    response = bare(client).post(f"/{model_type}/batch", **sent)
    assert response.status_code == 200, response.text
    answers = (response.json() if encoding == "json" else unpack(response.content))["responses"]
    wanted: dict[str, Any] = {case.name: case.over_http(model_type) for case in faulty}
    wanted |= dict(zip((case.name for case in sound), map(expected, valid(model_type)), strict=False))
    found = {case.name: read(model_type, answer) for case, answer in zip(mixed, answers, strict=True)}
    assert differences(found, wanted) == {}
