"""LoRA adapters that a client selects, as models get them: over every transport, in every form of call."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sheaf.embedded import EmbeddedServer
from sheaf_client import AdaptersNotSupportedError, AsyncSheaf, Sheaf
from sheaf_client.contracts.base import BaseRequest
from sheaf_client.contracts.time_series import TimeSeriesRequest
from sheaf_client.errors import InvalidRequestError
from tests.contract.echo import digest, specs
from tests.contract.exchanges import BY_TYPE, RESOURCE, STREAMING, TYPES, cases, valid
from tests.contract.targets import TARGETS, open_async
from tests.contract.values import document

TAKING = [model_type for model_type in TYPES if BY_TYPE[model_type].takes_adapters]
ECHOES = [spec for spec in specs() if spec.name in {*TAKING, "time_series"}]
PLAIN: dict[str, Any] = {"model": "time_series", "history": [1.0], "horizon": 1, "frequency": "1h"}
CLIENT = Path(__file__).parents[2] / "clients/typescript/dist/index.js"
every_type = pytest.mark.parametrize("model_type", TAKING)


@pytest.fixture(scope="module", params=["local", "asgi", "http"])
def client(request: pytest.FixtureRequest) -> Iterator[Sheaf]:
    with TARGETS[request.param](ECHOES) as running:
        yield running


def without(model_type: str) -> BaseRequest:
    """A valid request that says nothing of adapters."""
    return next(r for r in valid(model_type) if not {"adapters", "adapter_weights"} & r.model_fields_set)


def having(request: BaseRequest, adapters: list[str], weights: list[float] | None = None) -> str:
    """What the echo tells of the request with these adapters."""
    fields = {"adapters": adapters, "adapter_weights": weights}
    return digest(type(request).model_validate({**request.model_dump(), **fields}))


def told(answer: Any) -> str:
    """The hash of the request that the model got."""
    return answer.metadata.warnings[0]


def in_camel_case(name: str) -> str:
    return re.sub(r"_(\w)", lambda match: match[1].upper(), name)


def resource(client: Sheaf | AsyncSheaf, model_type: str) -> Any:
    return getattr(client, RESOURCE[model_type])


def method(client: Sheaf | AsyncSheaf, model_type: str, suffix: str = "") -> Any:
    return getattr(resource(client, model_type), BY_TYPE[model_type].name + suffix)


def test_the_published_document_says_which_operations_take_adapters() -> None:
    schemas = document()["components"]["schemas"]
    taking = {t for t in TYPES if "adapters" in schemas[BY_TYPE[t].request.__name__]["properties"]}
    assert taking == set(TAKING)
    assert TAKING


@every_type
def test_calls_streams_and_many_at_once_get_the_clients_adapters(client: Sheaf, model_type: str) -> None:
    request = without(model_type)
    wanted = having(request, ["sketch", "ink"], [0.8, 1.0])
    selecting = client.with_adapters("sketch@0.8", "ink")
    assert told(method(selecting, model_type)(request)) == wanted
    fields = {n: getattr(request, n) for n in request.model_fields_set if n != "model_name"}
    given = {**fields, "model": request.model_name, "request_id": request.request_id}
    assert told(method(selecting, model_type)(**given)) == wanted
    assert [told(a) for a in method(selecting, model_type, "_many")([request, request])] == [wanted] * 2
    if model_type in STREAMING:
        assert told(resource(selecting, model_type).stream(request).final()) == wanted
    assert told(method(client, model_type)(request)) == digest(request)


@every_type
def test_awaited_calls_get_them_too(client: Sheaf, model_type: str) -> None:
    request = without(model_type)

    async def run() -> list[str]:
        async with open_async(client, ECHOES) as awaited:
            selecting = awaited.with_adapters("sketch@-0.5")
            assert repr(selecting).endswith(", adapters sketch@-0.5)")
            found = [told(await method(selecting, model_type)(request))]
            found += map(told, await method(selecting, model_type, "_many")([request]))
            if model_type in STREAMING:
                async with resource(selecting, model_type).stream(request) as stream:
                    found.append(told(await stream.final()))
            return found

    assert set(asyncio.run(run())) == {having(request, ["sketch"], [-0.5])}


@every_type
def test_weights_are_sent_only_where_one_is_written(client: Sheaf, model_type: str) -> None:
    request = without(model_type)
    answer = method(client.with_adapters("ink", "sketch"), model_type)(request)
    assert told(answer) == having(request, ["ink", "sketch"])


@every_type
def test_what_a_call_or_a_contract_names_itself_stays(client: Sheaf, model_type: str) -> None:
    selecting, request = client.with_adapters("ink@0.5"), without(model_type)
    choices: list[dict[str, Any]] = [
        {"adapters": ["sketch"]},
        {"adapters": ["sketch"], "adapter_weights": [2.0]},
        {"adapters": []},
    ]
    for own in choices:
        held = type(request).model_validate({**request.model_dump(exclude_unset=True), **own})
        assert told(method(selecting, model_type)(held)) == digest(held)
        body = next(c.body for c in cases(model_type, "valid") if "adapters" not in c.body)
        answer = method(selecting, model_type)(**{**body, **own})
        assert told(answer) == digest(type(request).model_validate({**body, **own}))


@every_type
def test_weights_of_a_call_are_those_of_the_clients_adapters(client: Sheaf, model_type: str) -> None:
    request = without(model_type)
    given = {n: getattr(request, n) for n in (*request.model_fields_set, "request_id")}
    call = method(client.with_adapters("ink@0.5"), model_type)
    assert told(call(**given, adapter_weights=[0.25])) == having(request, ["ink"], [0.25])
    assert told(call(**given, adapter_weights=None)) == having(request, ["ink"])
    with pytest.raises(InvalidRequestError) as caught:
        call(**given, adapter_weights=[0.25, 1.0])
    assert [(f.code, f.path) for f in caught.value.errors] == [("same_length", "/adapter_weights")]


@every_type
def test_a_contract_given_is_not_changed(client: Sheaf, model_type: str) -> None:
    request = without(model_type)
    before = digest(request)
    method(client.with_adapters("ink"), model_type)(request)
    assert digest(request) == before
    with pytest.raises(InvalidRequestError) as caught:
        method(client.with_adapters("x" * 257), model_type)(request)
    assert [f.path for f in caught.value.errors] == ["/adapters/0"]


def test_operations_without_adapters_say_so(client: Sheaf) -> None:
    selecting = client.with_adapters("ink@0.5")
    request = TimeSeriesRequest(model_name="time_series", history=[1.0], horizon=1, frequency="1h")
    for call in (
        lambda: selecting.time_series.forecast(**PLAIN),
        lambda: selecting.time_series.forecast(request),
        lambda: selecting.time_series.forecast_many([request]),
        lambda: selecting.time_series.stream(**PLAIN),
    ):
        with pytest.raises(AdaptersNotSupportedError, match=r"time_series\.forecast takes no .* ink@0\.5"):
            call()
    assert told(selecting.with_adapters().time_series.forecast(request)) == digest(request)
    assert [model.name for model in selecting.models.list()] == [model.name for model in client.models.list()]
    error = AdaptersNotSupportedError("no")
    assert str(pickle.loads(pickle.dumps(error))) == "no"  # noqa: S301 - our own bytes


def test_another_selection_takes_the_place_of_the_first_and_options_keep_it() -> None:
    client = Sheaf("http://x", adapters=["a"])
    assert repr(client) == "Sheaf(http://x, adapters a)"
    assert repr(client.with_adapters("sketch@0.80", "me@home@1").with_options(timeout=5)) == (
        "Sheaf(http://x, adapters sketch@0.8, me@home@1)"
    )
    assert repr(client.with_adapters()) == "Sheaf(http://x)"
    assert repr(client) == "Sheaf(http://x, adapters a)"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (["ink@"], "a number after the last '@', as in 'ink@0.8'"),
        (["me@home"], "a name that holds '@' needs its weight too"),
        (["ink@nan"], "expected a number"),
        (["ink@1e999"], "expected a number"),
        (["ink@ 1"], "expected a number"),
        (["ink@1_0"], "expected a number"),
        (["@1"], "expected 'name' or 'name@weight'"),
        ([""], "expected 'name' or 'name@weight'"),
        (["ink", "ink@2"], "'ink' is named twice"),
    ],
)
def test_a_selection_that_cannot_be_read_says_what_was_expected(written: list[str], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        Sheaf().with_adapters(*written)
    with pytest.raises(ValueError, match=expected):
        Sheaf.local(["a backend that is not there"], adapters=written)


def test_a_selection_of_something_else_is_refused_by_its_type() -> None:
    wrong: Any = ["ink"]
    with pytest.raises(TypeError, match="not a list"):
        Sheaf().with_adapters(wrong)
    with pytest.raises(TypeError, match="not one text"):
        Sheaf(adapters="ink")


SCRIPT = """
import { AdaptersNotSupportedError, Sheaf } from "%s";

const [, , resource, operation, given] = process.argv;
const request = JSON.parse(given);
const client = new Sheaf({ baseUrl: process.env.SHEAF_BASE_URL }).withAdapters("sketch@0.8", "ink");
const told = (answer) => answer.metadata.warnings[0];
const found = [
  told(await client[resource][operation](request)),
  told(await client[resource].stream(request).final()),
  ...(await client[resource][`${operation}Many`]([request, request])).map(told),
];
const other = { model: "time_series", history: [1], horizon: 1, frequency: "1h" };
const error = await client.timeSeries.forecast(other).catch((error) => error);
console.log(JSON.stringify({ found, refused: error instanceof AdaptersNotSupportedError && error.message }));
"""


@pytest.mark.node
def test_the_typescript_client_selects_the_same(tmp_path: Path) -> None:
    script = tmp_path / "select.mjs"
    script.write_text(SCRIPT % CLIENT)
    model_type = next(t for t in TAKING if t in STREAMING)
    request = without(model_type)
    names = [in_camel_case(RESOURCE[model_type]), in_camel_case(BY_TYPE[model_type].name)]
    given = request.model_dump_json(include={*request.model_fields_set, "request_id"})
    with EmbeddedServer(ECHOES, port=0) as server:
        done = subprocess.run(
            ["node", str(script), *names, given],
            env={**os.environ, "SHEAF_BASE_URL": server.url},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["found"] == [having(request, ["sketch", "ink"], [0.8, 1.0])] * 4
    assert "time_series.forecast takes no adapters" in result["refused"]
