"""Members of objects are counted before one is built: of hundreds of thousands no contract knows many."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from math import inf
from typing import Any, cast

import httpx
import msgspec
import pytest

from sheaf.contract.operations import all_operations
from sheaf.http.limits import Limits
from sheaf.http.nesting import MAX_NAMES, Names, count_msgpack, is_json_deeper
from sheaf_client.errors import RequestTooLargeError
from tests.contract.echo import name_of
from tests.contract.values import JSON, schemas
from tests.http.conftest import GOOD, Serve

DEEP = 64
MANY = {f"a{i}": 1 for i in range(MAX_NAMES + 1)}
#: Where members that nobody knows may be.
PLACES: dict[str, dict[str, Any]] = {
    "the body": MANY,
    "a list": {"history": [1, MANY]},
    "a mapping": {"past_covariates": MANY},
    "a mapping of a mapping": {"past_covariates": {"a": MANY}},
    "many small objects": {"history": [{"a": i, "b": {}} for i in range(MAX_NAMES)]},
}
JSON_TYPE, PACKED = {"content-type": "application/json"}, {"content-type": "application/msgpack"}
ENCODINGS: list[tuple[Callable[[Any], bytes], dict[str, str]]] = [
    (lambda value: json.dumps(value).encode(), JSON_TYPE),
    (
        lambda value: gzip.compress(json.dumps(value, indent=1).encode()),
        {**JSON_TYPE, "content-encoding": "gzip"},
    ),
    (msgspec.msgpack.encode, PACKED),
]


def most_names(schema: JSON) -> float:
    """Most members that the objects of a value of a schema may have."""
    if "$ref" in schema:
        return most_names(schemas()[schema["$ref"].rpartition("/")[2]])
    if "anyOf" in schema:
        return max(map(most_names, schema["anyOf"]))
    items = most_names(schema["items"]) if "items" in schema else 0
    free = schema.get("additionalProperties", False)
    inner = 1 + (most_names(cast("JSON", free)) if isinstance(free, dict) else 0)
    return max(
        items * schema.get("maxItems", inf) if items else 0,
        inner * schema.get("maxProperties", inf) if free else 0,
        sum(1 + most_names(member) for member in schema.get("properties", {}).values()),
    )


@pytest.mark.parametrize("operation", all_operations(), ids=name_of)
def test_no_contract_takes_as_many(operation: Any) -> None:
    # The request itself is one of a batch's list.
    assert most_names(schemas()[operation.request.__name__]) + 1 <= MAX_NAMES


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("route", ["predict", "time_series/forecast", "stream", "batch"])
def test_more_members_than_any_contract_has_are_refused(serve: Serve, route: str, place: str) -> None:
    url = serve().url
    body = {**GOOD, **PLACES[place]}
    sent = {"requests": [GOOD, body, GOOD]} if route == "batch" else body
    for encode, headers in ENCODINGS:
        answer = httpx.post(f"{url}/echo/{route}", content=encode(sent), headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
        assert f"more than {MAX_NAMES} members" in answer.json()["detail"]
        assert httpx.post(f"{url}/echo/predict", json=GOOD).json()["mean"] == [2, 2]


def test_a_batch_has_members_for_each_of_its_requests(serve: Serve) -> None:
    url = serve(limits=Limits(max_batch=100)).url
    covariates = {"static_covariates": {f"a{i}": i for i in range(110)}}
    batch = {"requests": [{**GOOD, **covariates}] * 100}
    for encode, headers in ENCODINGS:
        answer = httpx.post(f"{url}/echo/batch", content=encode(batch), headers=headers)
        assert [each["mean"] for each in answer.json()["responses"]] == [[2, 2]] * 100
        more = {"static_covariates": {f"b{i}": i for i in range(1400)}}
        answer = httpx.post(
            f"{url}/echo/batch", content=encode({"requests": [{**GOOD, **more}] * 100}), headers=headers
        )
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
        assert "send fewer requests at once" in answer.json()["detail"]


@pytest.mark.parametrize("requests", [1, 2, 16])
def test_a_small_batch_may_hold_the_largest_requests(serve: Serve, requests: int) -> None:
    url = serve(limits=Limits(max_batch=requests)).url
    largest = max(int(most_names(schemas()[operation.request.__name__])) for operation in all_operations())
    batch = {"requests": [{**GOOD, "static_covariates": {f"a{i}": i for i in range(largest)}}] * requests}
    for encode, headers in ENCODINGS:
        answer = httpx.post(f"{url}/echo/batch", content=encode(batch), headers=headers)
        assert answer.status_code == 200, answer.text
        # Mappings of a series have fewer: the contract says so, and not the count of members.
        assert {each["code"] for each in answer.json()["responses"]} == {"invalid"}
    many = {"requests": [{**GOOD, **MANY}] * requests}
    answer = httpx.post(f"{url}/echo/batch", json=many)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_colons_of_times_and_texts_are_no_members() -> None:
    times = {**GOOD, "timestamps": ["2024-01-01T00:00:00"] * 100_000, "item_id": '":' * 100_000}
    for text in (json.dumps(times), json.dumps({**times, "item_id": " : \\" * 100_000}, indent=0)):
        assert not is_json_deeper(text.encode(), DEEP)


def names_of(value: Any) -> int:
    if isinstance(value, list):
        return sum(map(names_of, cast("list[Any]", value)))
    members = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    return len(members) + sum(map(names_of, members.values()))


def counted(content: bytes, names: Names) -> bool:
    """Whether a body has no more names; JSON where it begins as an object of it."""
    try:
        if content.startswith(b"{"):
            assert not is_json_deeper(content, DEEP, names)
        else:
            assert count_msgpack(content, DEEP, names=names) is not None
    except RequestTooLargeError:
        return False
    return True


def test_members_are_counted_as_they_are() -> None:
    chance = random.Random(3)
    hard = ["k", 'say \\"hi\\": ', "::", "\\\\", '"', "{", ' " : ', "é"]

    def grow(left: int) -> Any:
        kind = chance.randrange(4) if left else chance.randrange(2)
        if kind == 3:
            return {f"{chance.choice(hard)}{i}": grow(left - 1) for i in range(chance.choice([1, 3, 20]))}
        if kind == 2:
            return [grow(left - 1) for _ in range(chance.choice([0, 3, 20]))]
        return [chance.choice(hard) * 3, 1.5][kind]

    for _ in range(60):
        requests = [{"a": [grow(5)]} for _ in range(3)]
        body = {"requests": requests, "z": 1}
        most, number = max(map(names_of, requests)), names_of(body)
        spaced = json.dumps(body, indent=chance.choice([None, 2]), separators=(" ,", " : "))
        for content in (json.dumps(body).encode(), spaced.encode(), msgspec.msgpack.encode(body)):
            assert counted(content, Names(number, number))
            assert not counted(content, Names(number, number - 1))
            # The name before the list may count for the first, and what is behind it for the last.
            assert counted(content, Names(most + 1, number))
            assert not counted(content, Names(most - 1, number))


@pytest.mark.parametrize("text", ['"', '":', "\\", '\\" : ', '\\\\"', ':{"a":', "é:"])
def test_strings_end_where_they_do_in_long_bodies(text: str) -> None:
    # What is looked at together ends in the midst of each of these.
    for length in range(2**20 - 16, 2**20):
        content = json.dumps({"a": "x" * length + 2 * text, "b": {"c": text}}).encode()
        assert counted(content, Names(3, 3))
        assert not counted(content, Names(2, 2))
