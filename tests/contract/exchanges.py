"""What is asked of every target and what must come back: the cases of the schema, and drawn requests.

An outcome is the answer as it goes on the wire, without the times that it took, or the faults of a refusal.
"""

from __future__ import annotations

import binascii
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias
from uuid import NAMESPACE_URL, uuid5

import msgspec
from hypothesis import Phase, given, settings
from pydantic import ValidationError

from sheaf.contract.operations import all_operations
from sheaf_client._binary_fields import each
from sheaf_client._faults import faults_of
from sheaf_client._operation import Operation
from sheaf_client.contracts.base import BaseRequest, BaseResponse
from sheaf_client.errors import InvalidRequestError
from tests.contract.echo import NIL, EchoBackend, name_of
from tests.contract.requests import requests
from tests.contract.values import JSON, document

CASES = Path(__file__).parents[2] / "schema/cases"
#: The operations by what the suite calls them: the model type alone stands for its primary operation.
BY_TYPE: dict[str, Operation[Any, Any]] = {name_of(op): op for op in all_operations()}
TYPES = sorted(BY_TYPE)
#: What the document says of the operation of each type: its resource (a tag), and whether it streams.
_PUBLISHED = {t: document()["paths"][BY_TYPE[t].path]["post"] for t in TYPES}
RESOURCE: dict[str, str] = {t: post["tags"][0] for t, post in _PUBLISHED.items()}
STREAMING: list[str] = [t for t, post in _PUBLISHED.items() if post["x-sheaf-stream"]]
#: Drawn requests of each type.
DRAWN = 10
Outcome: TypeAlias = JSON | list[tuple[str, str]]


@dataclass(frozen=True)
class Case:
    """A body of schema/cases, addressed to the echo of its type, and the faults it has."""

    name: str
    body: Any
    faults: list[tuple[str, str]]

    def over_http(self, model_type: str) -> Outcome:
        """Its outcome where the URL names the model: the body then need not, and what it says is a label."""
        named = self.body.get("model_name", "") if isinstance(self.body, dict) else None
        if not isinstance(named, str) or "/model_name" not in {path for _, path in self.faults}:
            return self.faults
        body = {**self.body, "model_name": model_type}
        try:
            return expected(BY_TYPE[model_type].request.model_validate_json(json.dumps(body), strict=True))
        except ValidationError as error:
            return sorted((fault.code, fault.path) for fault in faults_of(error, body))


@cache
def cases(model_type: str, kind: str) -> list[Case]:
    """The `valid` or `invalid` cases of a type. Where the model's name is not the fault it is the echo's."""
    found: list[Case] = []
    for path in sorted((CASES / model_type / kind).glob("*.json")):
        case = json.loads(path.read_text(encoding="utf-8"))
        body = json.loads(case["raw"]) if "raw" in case else case["request"]
        faults = sorted((fault["code"], fault["path"]) for fault in case.get("errors", ()))
        if isinstance(body, dict):
            body.setdefault("request_id", str(uuid5(NAMESPACE_URL, path.as_posix())))
            if "operation" in BY_TYPE[model_type].request.model_fields:
                # A batch tells by it what is asked for.
                body.setdefault("operation", BY_TYPE[model_type].name)
            if "/model_name" not in {where for _, where in faults}:
                body["model_name"] = model_type
        found.append(Case(f"{kind}/{path.stem}", body, faults))
    return found


@cache
def valid(model_type: str) -> list[BaseRequest]:
    """The valid cases as contracts, and requests drawn from the schema."""
    operation = BY_TYPE[model_type]
    found = [
        operation.request.model_validate_json(json.dumps(case.body), strict=True, by_name=False)
        for case in cases(model_type, "valid")
    ]

    @settings(max_examples=DRAWN, derandomize=True, database=None, deadline=None, phases=[Phase.generate])
    @given(requests(operation, model_type))
    def collect(request: BaseRequest) -> None:
        # Drawn identifiers are often alike; here they tell requests apart.
        drawn = uuid5(NAMESPACE_URL, f"{model_type} {len(found)}")
        found.append(request.model_copy(update={"request_id": drawn}))

    collect()
    return found


def refused(model_type: str) -> BaseRequest:
    """A request that the contract allows and the echo refuses."""
    return valid(model_type)[0].model_copy(update={"request_id": NIL})


#: What is expected of the requests that each target gets, by identity: the same objects go to all of them.
_EXPECTED: dict[int, tuple[BaseRequest, Outcome]] = {}


def expected(request: BaseRequest) -> Outcome:
    """What the echo answers in this process."""
    held, outcome = _EXPECTED.get(id(request), (None, {}))
    if held is not request:
        outcome = _expected(request)
        _EXPECTED[id(request)] = request, outcome
    return outcome


def _expected(request: BaseRequest) -> Outcome:
    if getattr(request, "feature_ref", None) is not None:
        return [("no_feature_store", "/feature_ref")]  # no target has one
    if request.request_id == NIL:
        return [("unsupported", "/request_id")]
    return wire(EchoBackend.answer(request))


def outcome(call: Callable[[], BaseResponse]) -> Outcome:
    """What a call gives or raises."""
    try:
        return settled(call())
    except InvalidRequestError as error:
        return settled(error)


def settled(given: object) -> Outcome:
    """The outcome that a response or an error is."""
    if isinstance(given, InvalidRequestError):
        return sorted((fault.code, fault.path) for fault in given.errors)
    if isinstance(given, BaseException):
        raise given
    assert isinstance(given, BaseResponse), given
    return wire(given)


def wire(answer: BaseResponse) -> JSON:
    """An answer as it goes on the wire, without what it cost."""
    return answer.model_dump(mode="json", exclude={"metadata": {"usage"}})


def packed(contract: type[BaseRequest], body: Any) -> bytes:
    """A body as MessagePack: base64 text of binary members as raw bytes, where it is any.

    Raises `OverflowError` for integers of more than 64 bits, which MessagePack has not.
    """

    def raw(item: Any, _: object) -> Any:
        try:
            return binascii.a2b_base64(item, strict_mode=True) if isinstance(item, str) else item
        except (binascii.Error, ValueError):
            return item

    if isinstance(body, dict):
        wires = {field.wire for field in contract.__binary__.values()}
        body = {name: each(value, raw) if name in wires else value for name, value in body.items()}
    return msgspec.msgpack.encode(body)


def differences(found: dict[Any, Outcome], wanted: dict[Any, Outcome]) -> dict[Any, Any]:
    """The members that differ: what was found and what was wanted."""
    return {name: (found.get(name), wanted[name]) for name in wanted if found.get(name) != wanted[name]}


def streaming(model_type: str) -> str:
    """The method of the clients that streams an operation."""
    _, _, own = model_type.partition(".")
    return f"{own}_stream" if own else "stream"


def in_turn(sent: list[BaseRequest]) -> dict[int, Outcome]:
    """What is expected of each request, by its place."""
    return dict(enumerate(map(expected, sent)))
