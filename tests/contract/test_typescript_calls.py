"""Every contract through the TypeScript client over HTTP: requests, answers, refusals as in Python.

One Node process makes the calls of all model types, since starting one takes longer than its calls.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sheaf.embedded import EmbeddedServer
from sheaf_client.contracts.base import BaseRequest
from tests.contract.echo import EchoBackend, specs
from tests.contract.exchanges import (
    BY_TYPE,
    RESOURCE,
    STREAMING,
    TYPES,
    Outcome,
    cases,
    differences,
    expected,
    in_turn,
    refused,
    streaming,
    valid,
    wire,
)

pytestmark = pytest.mark.node

SCRIPT = Path(__file__).parent / "typescript_calls.mjs"
CLIENT = Path(__file__).parents[2] / "clients/typescript/dist/index.js"
every_type = pytest.mark.parametrize("model_type", TYPES)


def in_camel_case(name: str) -> str:
    return re.sub(r"_(\w)", lambda match: match[1].upper(), name)


def body(request: BaseRequest) -> Any:
    return json.loads(request.model_dump_json())


def streamed(model_type: str) -> list[BaseRequest]:
    return [request for request in valid(model_type) if isinstance(expected(request), dict)]


def invalid(model_type: str) -> list[Any]:
    return [case for case in cases(model_type, "invalid") if isinstance(case.body, dict)]


def mixed(model_type: str) -> list[Any]:
    """Bodies for one call: sound ones, one that the model refuses, and all that are not for sending."""
    sound = [*valid(model_type), refused(model_type)]
    return [*map(body, sound), *(case.body for case in invalid(model_type))]


#: What is given in each form, by model type.
GIVEN: dict[str, Callable[[str], list[Any]]] = {
    "call": lambda t: [*map(body, valid(t)), *(case.body for case in invalid(t))],
    "many": lambda t: [mixed(t)],
    "stream": lambda t: [body(request) for request in streamed(t)] if t in STREAMING else [],
}


@pytest.fixture(scope="module")
def results() -> dict[tuple[str, str], list[Any]]:
    """The result of each call, in turn, by model type and form."""
    if not CLIENT.is_file():
        pytest.fail(f"{CLIENT} is missing: run `npm ci && npm run build` in clients/typescript")
    calls: list[dict[str, Any]] = []
    places: list[tuple[str, str]] = []
    for model_type in TYPES:
        operation = in_camel_case(BY_TYPE[model_type].name)
        for form, given in GIVEN.items():
            for one in given(model_type):
                calls.append(
                    {
                        "form": form,
                        "resource": in_camel_case(RESOURCE[model_type]),
                        "operation": operation if form != "stream" else in_camel_case(streaming(model_type)),
                        "given": one,
                    }
                )
                places.append((model_type, form))
    lines = "\n".join(map(json.dumps, calls)).replace("Infinity", "1e999")
    with EmbeddedServer(specs(), port=0) as server:
        command = ["node", str(SCRIPT), CLIENT.as_uri(), server.url]
        done = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[tuple[str, str], list[Any]] = {}
    for place, line in zip(places, done.stdout.splitlines(), strict=True):
        found.setdefault(place, []).append(json.loads(line))
    return found


def settled(model_type: str, result: dict[str, Any]) -> Outcome:
    if "faults" in result:
        assert result["kind"] == "InvalidRequestError"
        return sorted((code, path) for code, path in result["faults"])
    return read(model_type, result["answer"])


def read(model_type: str, answer: dict[str, Any]) -> Outcome:
    return wire(BY_TYPE[model_type].response.model_validate_json(json.dumps(answer)))


@every_type
def test_a_call_gets_the_answer_of_its_request(results: dict[Any, list[Any]], model_type: str) -> None:
    sent = valid(model_type)
    given = results[model_type, "call"][: len(sent)]
    assert differences({i: settled(model_type, r) for i, r in enumerate(given)}, in_turn(sent)) == {}
    assert {result["sent"] for result in given} == {1}


@every_type
def test_an_invalid_request_is_refused_before_it_is_sent(
    results: dict[Any, list[Any]], model_type: str
) -> None:
    given = results[model_type, "call"][len(valid(model_type)) :]
    named = list(zip((case.name for case in invalid(model_type)), given, strict=True))
    found = {name: settled(model_type, result) for name, result in named}
    assert differences(found, {case.name: case.faults for case in invalid(model_type)}) == {}
    assert [name for name, result in named if result["sent"]] == []


@every_type
def test_many_in_one_call_are_answered_or_refused_each(
    results: dict[Any, list[Any]], model_type: str
) -> None:
    (result,) = results[model_type, "many"]
    sound = [*valid(model_type), refused(model_type)]
    wanted = [*map(expected, sound), *(case.faults for case in invalid(model_type))]
    found = {i: settled(model_type, one) for i, one in enumerate(result["many"])}
    assert len(found) == len(wanted)
    assert differences(found, dict(enumerate(wanted))) == {}
    assert result["sent"] == 1


@pytest.mark.parametrize("model_type", STREAMING)
def test_a_stream_tells_its_steps_and_ends_with_the_answer(
    results: dict[Any, list[Any]], model_type: str
) -> None:
    for request, result in zip(streamed(model_type), results[model_type, "stream"], strict=True):
        *steps, last = result["events"]
        told = [BY_TYPE[model_type].progress.model_validate(step) for step in steps]
        assert told == EchoBackend.progress(request)
        assert (last.pop("type"), last.pop("done")) == ("result", True)
        assert read(model_type, last) == expected(request)
