"""One decoder for every way in: a body of HTTP, an item of a batch and a line of a job are read alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from sheaf.contract.decoding import decode_line, decode_text, decode_value, parse
from sheaf.contract.operations import operations_of
from sheaf_client import ProblemError
from sheaf_client.contracts.base import BaseRequest
from sheaf_client.errors import InvalidRequestError

CASES = sorted((Path(__file__).parents[2] / "schema/cases").glob("*/*/*.json"))
NAME = "here"


def model_type_of(path: Path) -> str:
    return path.parts[-3].partition(".")[0]


def body_of(path: Path) -> bytes:
    case: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if "raw" in case:
        return str(case["raw"]).encode()
    operation = path.parts[-3].partition(".")[2]  # of all but the primary one, which a URL may name
    named = {"operation": operation} if operation and isinstance(case["request"], dict) else {}
    return json.dumps({**named, **case["request"]} if named else case["request"]).encode()


def read(path: Path, made_up: UUID | None) -> BaseRequest | ProblemError:
    """What HTTP makes of a body; with an identifier, what jobs make of a line."""
    content, model_type = body_of(path), model_type_of(path)
    try:
        if made_up is not None:
            return decode_line(content, model_type, NAME, made_up)
        kind: type[BaseRequest] = operations_of(model_type).asked_for(parse(content)).request
        request = decode_text(content, kind, NAME)
        return decode_value(parse(content), kind, NAME) if request is None else request
    except ProblemError as error:
        return error


@pytest.mark.parametrize("path", CASES, ids=lambda path: "/".join(path.parts[-3:]))
def test_a_body_and_a_line_are_the_same_request_or_have_the_same_faults(path: Path) -> None:
    made_up = uuid4()
    body, line = read(path, None), read(path, made_up)
    assert type(body) is type(line)
    if isinstance(body, ProblemError) or isinstance(line, ProblemError):
        assert path.parts[-2] == "invalid"
        assert (body.errors, body.detail) == (line.errors, line.detail)  # type: ignore[union-attr]
        return
    # A name that a body lacks, or that is none, is a fault of a body alone.
    assert path.parts[-2] == "valid" or path.stem.startswith("model_name")
    given = b'"request_id"' in body_of(path)
    assert line.request_id == (body.request_id if given else made_up)
    same = {"request_id": body.request_id, "model_name": NAME}
    assert repr(line.model_copy(update=same)) == repr(body.model_copy(update=same))
    assert (body.model_name, line.model_name) == (NAME, NAME)


FORECAST: dict[str, Any] = {"history": [1.0, 2.0], "horizon": 1, "frequency": "1h"}


def test_a_name_is_a_label_and_is_replaced_unless_it_is_none() -> None:
    (kind,) = (operation.request for operation in operations_of("time_series"))
    for label in ({}, {"model_name": "elsewhere"}, {"model_name": NAME}):
        found = decode_text(json.dumps({**label, **FORECAST}).encode(), kind, NAME)
        assert found is not None
        assert found.model_name == decode_value({**label, **FORECAST}, kind, NAME).model_name == NAME
    with pytest.raises(InvalidRequestError) as caught:
        decode_value({"model_name": 7, **FORECAST}, kind, NAME)
    assert [(fault.code, fault.path) for fault in caught.value.errors] == [("wrong_type", "/model_name")]


def test_white_space_before_a_body_takes_no_second_pass() -> None:
    (kind,) = (operation.request for operation in operations_of("time_series"))
    text, made_up = b" \t\r\n" + json.dumps(FORECAST).encode(), uuid4()
    found = decode_text(text, kind, NAME, made_up)
    assert found is not None
    assert (found.model_name, found.request_id) == (NAME, made_up)


def test_a_refusal_repeats_the_identifier_of_its_request() -> None:
    (kind,) = (operation.request for operation in operations_of("time_series"))
    wrong, own, made_up = {**FORECAST, "horizon": 0}, str(uuid4()), uuid4()

    def named(value: Any, given: UUID | None) -> str | None:
        with pytest.raises(InvalidRequestError) as caught:
            decode_value(value, kind, NAME, given)
        return caught.value.request_id

    assert named({**wrong, "request_id": own}, None) == named({**wrong, "request_id": own}, made_up) == own
    # What a caller of HTTP calls it, though that is no UUID; a job's is always one.
    assert named({**wrong, "request_id": "mine"}, None) == "mine"
    assert named({**wrong, "request_id": "mine"}, made_up) == str(made_up)
    assert named({**wrong, "request_id": "m" * 65}, None) is None
    assert (named(wrong, None), named([], made_up)) == (None, str(made_up))


def test_an_unknown_type_is_told_with_those_there_are() -> None:
    with pytest.raises(LookupError, match=r"no model type is called 'tea'; there are audio, .*weather"):
        operations_of("tea")
