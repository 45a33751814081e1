"""Who asks for much holds nobody up: large answers are written on no event loop, and in pieces."""

from __future__ import annotations

import itertools
import json
import threading
from typing import Any, ClassVar
from uuid import uuid4

import httpx
import msgspec
import pytest
from pydantic import field_serializer

from sheaf.api.tabular import TabularResponse
from sheaf.api.time_series import TimeSeriesRequest, TimeSeriesResponse
from sheaf.backends.base import respond
from sheaf.contract.operations import all_operations
from sheaf.http.encodings import encode_response
from sheaf.http.writing import _JSON, _PACKED, _count, _document, _kind, encode_document, size_of
from sheaf.spec import ModelSpec
from sheaf_client._msgpack import pack
from sheaf_client.contracts.base import BaseResponse
from tests.attack.conftest import Serve
from tests.contract.values import schemas
from tests.echoes import Echo
from tests.http.conftest import GOOD

MANY = 50_000
IDENTITY = {"model_name": "m", "request_id": uuid4()}
FORECAST: dict[str, Any] = {**IDENTITY, "mean": [0.5, 1e-300], "horizon": 2, "frequency": "1h"}


def forecast(**fields: Any) -> TimeSeriesResponse:
    return TimeSeriesResponse(**{**FORECAST, **fields})


def numbers(count: int) -> list[float]:
    return [n / 7 for n in range(count)]


LARGE: dict[str, BaseResponse] = {
    "a list": forecast(mean=numbers(MANY), item_id='\u2028 "ö"'),
    "lists by name": forecast(quantiles={'0."1': numbers(MANY), "0.9": numbers(3)}),
    "long lists in a list": forecast(samples=[numbers(MANY)] * 2, mean=numbers(20_001)),
    "short lists in a list": forecast(samples=[numbers(7)] * MANY),
    "lists of different lengths": forecast(samples=[numbers(n) for n in (3, 0, MANY, 17, *([1] * MANY))]),
    "empty lists": forecast(samples=[[1.0], *([[]] * MANY)]),
    "names": TabularResponse(
        **IDENTITY, predictions=["a", 1, 2.5] * MANY, task="classification", n_context=1, n_query=3 * MANY
    ),
}


@pytest.mark.parametrize("name", LARGE)
def test_what_is_written_in_pieces_is_the_same(name: str) -> None:
    answer = LARGE[name]
    text = encode_document(answer, packed=False)
    assert json.loads(text) == json.loads(answer.model_dump_json())
    # Numbers are spelt as they are elsewhere, so there are no more bytes than in one go.
    assert len(text) == len(answer.model_dump_json().encode())
    assert msgspec.msgpack.decode(encode_document(answer, packed=True)) == msgspec.msgpack.decode(
        pack(answer)
    )


@pytest.mark.parametrize("form", [_JSON, _PACKED], ids=["JSON", "MessagePack"])
@pytest.mark.parametrize("name", [name for name in LARGE if "different" not in name])
def test_no_piece_is_large(name: str, form: Any) -> None:
    answer = LARGE[name]
    long = [field for field in _kind(type(answer)).plain if _count(getattr(answer, field)) > 8192]
    assert long
    pieces = [len(piece) for piece in _document(answer, long, form)]
    assert len(pieces) > 6
    assert max(pieces) < 200_000


@pytest.mark.parametrize("operation", all_operations(), ids=lambda op: op.response.__name__)
def test_every_list_of_numbers_in_an_answer_is_written_in_pieces(operation: Any) -> None:
    kind = operation.response
    numeric = {
        name
        for name, schema in schemas()[kind.__name__]["properties"].items()
        for form in [schema, *schema.get("anyOf", ())]
        if form.get("type") == "array" and form["items"].get("type") in ("number", "integer")
    }
    assert numeric <= {*_kind(kind).plain}


class Recorded(TimeSeriesResponse):
    """An answer that tells by which thread it is written."""

    writers: ClassVar[list[str]] = []

    @field_serializer("frequency")
    def _told(self, value: str) -> str:
        self.writers.append(threading.current_thread().name)
        return value


class Generous(Echo):
    """Answers with as many samples as are asked for."""

    def answer(self, request: TimeSeriesRequest) -> TimeSeriesResponse:
        samples = list(itertools.repeat([0.5] * request.horizon, request.num_samples))
        fields = {"mean": [0.5] * request.horizon, "horizon": request.horizon, "samples": samples}
        return respond(request, Recorded, **fields, frequency="1h")


@pytest.mark.parametrize("accept", ["application/json", "application/msgpack"])
@pytest.mark.parametrize("route", ["predict", "stream", "batch"])
def test_large_answers_are_written_on_no_event_loop(serve: Serve, route: str, accept: str) -> None:
    server = serve(ModelSpec(name="echo", backend_cls=Generous))
    Recorded.writers.clear()
    body = {**GOOD, "num_samples": 10_000}
    sent = {"requests": [body]} if route == "batch" else body
    answer = httpx.post(f"{server.url}/echo/{route}", json=sent, headers={"accept": accept}, timeout=30)
    assert answer.status_code == 200
    assert Recorded.writers
    assert "sheaf-http" not in Recorded.writers


def test_small_answers_are_written_at_once() -> None:
    answer = forecast()
    assert size_of(answer) < 1000
    content, media = encode_response(answer, "", short=True)
    assert media == b"application/json"
    assert json.loads(content) == json.loads(answer.model_dump_json())
