"""Every case of schema/cases: a valid body is accepted, an invalid one gets exactly the faults it names.

The TypeScript client's tests read the same files, so both languages say the same of the same body.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from pydantic import ValidationError

from sheaf.contract.operations import all_operations
from sheaf_client._base import Model
from sheaf_client._bounded import read_text
from sheaf_client._faults import faults_of
from sheaf_client.contracts.base import BaseRequest
from tests.contract.echo import name_of
from tests.contract.requests import rules_of

CASES = Path(__file__).parents[2] / "schema/cases"
REQUESTS: dict[str, type[BaseRequest]] = {name_of(op): op.request for op in all_operations()}


def cases(kind: str) -> list[Any]:
    paths = sorted(CASES.glob(f"*/{kind}/*.json"))
    return [pytest.param(path, id=f"{path.parts[-3]}-{path.stem}") for path in paths]


def read(path: Path) -> tuple[type[BaseRequest], str, set[tuple[str, str]]]:
    case = json.loads(path.read_text(encoding="utf-8"))
    text = case["raw"] if "raw" in case else json.dumps(case["request"])
    faults = {(fault["code"], fault["path"]) for fault in case.get("errors", ())}
    return REQUESTS[path.parts[-3]], text, faults


@pytest.mark.parametrize("path", cases("valid"))
def test_a_valid_body_is_accepted_and_survives_the_round_trip(path: Path) -> None:
    contract, text, faults = read(path)
    assert not faults
    request = contract.model_validate_json(text, strict=True)
    again = read_text(contract, request.model_dump_json().encode())
    assert again is not None
    assert again == request
    assert again.model_extra is None


@pytest.mark.parametrize("path", cases("invalid"))
def test_an_invalid_body_gets_the_faults_it_names(path: Path) -> None:
    contract, text, expected = read(path)
    with pytest.raises(ValidationError) as caught:
        contract.model_validate_json(text, strict=True)
    assert {(fault.code, fault.path) for fault in faults_of(caught.value, json.loads(text))} == expected
    assert read_text(contract, text.encode()) is None


@pytest.mark.parametrize("model_type", sorted(REQUESTS))
def test_every_member_and_every_rule_has_an_invalid_case(model_type: str) -> None:
    found = [read(path) for path in (CASES / model_type / "invalid").glob("*.json")]
    faults = {(code, without_numbers(path)) for _, _, expected in found for code, path in expected}
    missing: list[Any] = []
    for root, contract in parts_of(REQUESTS[model_type]):
        at_fault = {path[len(root) :].split("/")[1] for _, path in faults if path.startswith(f"{root}/")}
        wire = {field.serialization_alias or name for name, field in contract.model_fields.items()}
        missing += [(root, name) for name in wire - at_fault]
        rules = rules_of(contract)
        missing += [(root, rule) for rule in rules if not any(breaks(f, root, rule) for f in faults)]
    assert missing == []


def parts_of(contract: type[Model], root: str = "") -> Iterator[tuple[str, type[Model]]]:
    """The contract, and those that it holds alone or in lists, with the paths that lead to them."""
    yield root, contract
    for name, field in contract.model_fields.items():
        for branch in get_args(field.annotation) or (field.annotation,):
            for part in (branch, *get_args(branch)):
                if isinstance(part, type) and issubclass(part, Model):
                    alone = part is branch and get_origin(field.annotation) is not list
                    yield from parts_of(part, f"{root}/{name}" + ("" if alone else "/*"))


def without_numbers(path: str) -> str:
    return re.sub(r"/\d+(?=/|$)", "/*", path)


def breaks(fault: tuple[str, str], root: str, rule: Mapping[str, Any]) -> bool:
    """Whether the fault may be of this rule: its code, at one of the fields where the rule tells it."""
    if "fields" in rule and fault == (rule["rule"], root):
        return True
    named: list[str] = rule["needs"] if rule["rule"] == "requires" else [*rule.get("fields", ())]
    places = [f"{root}/{name.removesuffix('.*')}" for name in named or [rule["field"]]]
    return fault[0] == rule["rule"] and any(f"{fault[1]}/".startswith(f"{place}/") for place in places)
