"""Every case of schema/cases: a valid body is accepted, an invalid one gets exactly the faults it names.

The TypeScript client's tests read the same files, so both languages say the same of the same body.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from sheaf.http._routes import OPERATIONS
from sheaf_client._faults import faults_of
from sheaf_client.contracts.base import BaseRequest
from tests.contract.echo import name_of

CASES = Path(__file__).parents[2] / "schema/cases"
REQUESTS: dict[str, type[BaseRequest]] = {name_of(op): op.request for op in OPERATIONS}


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
    assert contract.model_validate_json(request.model_dump_json(), strict=True) == request


@pytest.mark.parametrize("path", cases("invalid"))
def test_an_invalid_body_gets_the_faults_it_names(path: Path) -> None:
    contract, text, expected = read(path)
    with pytest.raises(ValidationError) as caught:
        contract.model_validate_json(text, strict=True)
    assert {(fault.code, fault.path) for fault in faults_of(caught.value, json.loads(text))} == expected


@pytest.mark.parametrize("model_type", sorted(REQUESTS))
def test_every_member_and_every_rule_has_an_invalid_case(model_type: str) -> None:
    found = [read(path) for path in (CASES / model_type / "invalid").glob("*.json")]
    faults = {fault for _, _, expected in found for fault in expected}
    contract = REQUESTS[model_type]
    wire = {field.serialization_alias or name for name, field in contract.model_fields.items()}
    assert wire <= {path.split("/")[1] for _, path in faults if path}
    extra: Any = contract.model_config.get("json_schema_extra", {})
    assert {rule["rule"] for rule in extra.get("x-sheaf-rules", ())} <= {code for code, _ in faults}
