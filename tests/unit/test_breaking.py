"""The check for breaking changes: each kind is told with its place, and what only adds passes."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from codegen.breaking import breaking_changes
from codegen.released import read_contract

ROOT = Path(__file__).parents[2]
FORECAST = "POST /{model_name}/time_series/forecast"

Contract = dict[str, Any]


@pytest.fixture(scope="module")
def contract() -> Contract:
    return json.loads(json.dumps(read_contract(ROOT / "schema")))


def changed(contract: Contract, change: Callable[[Contract], object]) -> Contract:
    new = copy.deepcopy(contract)
    change(new)
    return new


def inside(contract: Contract, path: Sequence[str]) -> Any:
    """What stands at a path of keys."""
    return functools.reduce(lambda node, key: node[key], path, contract)


def at(name: str, field: str, **keywords: Any) -> Callable[[Contract], object]:
    """Set keywords of one field; None takes a keyword away."""

    def change(contract: Contract) -> None:
        node = contract["schemas"][name]["properties"][field]
        for key, value in keywords.items():
            if value is None:
                del node[key]
            else:
                node[key] = value

    return change


def put(
    name: str, field: str, node: dict[str, Any], *, required: bool = False
) -> Callable[[Contract], object]:
    def change(contract: Contract) -> None:
        contract["schemas"][name]["properties"][field] = node
        if required:
            contract["schemas"][name]["required"].append(field)

    return change


def drop(*path: str) -> Callable[[Contract], object]:
    def change(contract: Contract) -> None:
        node = inside(contract, path[:-1])
        node.remove(path[-1]) if isinstance(node, list) else node.pop(path[-1])

    return change


def extend(*path: str, value: Any) -> Callable[[Contract], object]:
    return lambda contract: inside(contract, path).append(value)


def setting(*path: str, value: Any) -> Callable[[Contract], object]:
    return lambda contract: inside(contract, path[:-1]).update({path[-1]: value})


def renamed(old: str, new: str) -> Callable[[Contract], object]:
    return lambda c: c.update(json.loads(json.dumps(c).replace(f'"{old}"', f'"{new}"')))


REQUEST, RESPONSE = "TimeSeriesRequest", "TimeSeriesResponse"


def _with_needed_field(contract: Contract) -> None:
    schema = contract["schemas"]["RelaxRequest"]
    schema["properties"]["cutoff"] = {"type": ["number", "null"], "default": None}
    schema["x-sheaf-rules"].append({"rule": "needed_when_true", "field": "cutoff", "flag": "relax_cell"})


BREAKING: dict[str, tuple[Callable[[Contract], object], str]] = {
    "operation removed": (drop("operations", FORECAST), f"{FORECAST}: removed"),
    "operation renamed": (
        setting("operations", FORECAST, "id", value="time_series_predict"),
        f"{FORECAST}: operationId time_series_forecast → time_series_predict",
    ),
    "stream removed": (
        setting("operations", FORECAST, "streams", value=False),
        f"{FORECAST}: streams no longer",
    ),
    "encoding removed": (
        drop("operations", FORECAST, "accepts", "application/msgpack"),
        f"{FORECAST} request application/msgpack: removed",
    ),
    "status removed": (drop("operations", FORECAST, "answers", "default"), f"{FORECAST} default: removed"),
    "status added": (
        setting("operations", FORECAST, "answers", "202", value={}),
        f"{FORECAST} 202: a new answer",
    ),
    "header newly required": (
        setting("operations", FORECAST, "parameters", "header X-Request-ID", "required", value=True),
        f"{FORECAST} header X-Request-ID: newly required",
    ),
    "header removed": (
        drop("operations", FORECAST, "parameters", "header X-Sheaf-Timeout"),
        f"{FORECAST} header X-Sheaf-Timeout: removed",
    ),
    "header bounded more tightly": (
        setting("operations", FORECAST, "parameters", "header X-Request-ID", "schema", "maxLength", value=64),
        f"{FORECAST} header X-Request-ID: upper bound 128 → 64",
    ),
    "request field removed": (drop("schemas", REQUEST, "properties", "seed"), f"{REQUEST}/seed: removed"),
    "request field newly required": (
        extend("schemas", REQUEST, "required", value="seed"),
        f"{REQUEST}/seed: newly required",
    ),
    "new field required at once": (
        put(REQUEST, "unit", {"type": "string"}, required=True),
        f"{REQUEST}/unit: newly required",
    ),
    "upper bound lowered": (
        at(REQUEST, "horizon", maximum=100),
        f"{REQUEST}/horizon: upper bound 16384 → 100",
    ),
    "lower bound raised": (at(REQUEST, "horizon", minimum=2), f"{REQUEST}/horizon: lower bound 1 → 2"),
    "bound excluded": (
        at("SatelliteRequest", "lat", maximum=None, exclusiveMaximum=90),
        "SatelliteRequest/lat: upper bound 90 → 90 excluded",
    ),
    "bound where there was none": (
        at(REQUEST, "target_index", maximum=7),
        f"{REQUEST}/target_index: upper bound none → 7",
    ),
    "fewer items": (
        at(REQUEST, "quantile_levels", maxItems=9),
        f"{REQUEST}/quantile_levels: upper bound 199 → 9",
    ),
    "type narrowed": (
        at("SatelliteRequest", "gsd", type="integer"),
        "SatelliteRequest/gsd: number → integer",
    ),
    "type replaced": (at(REQUEST, "horizon", type="string"), f"{REQUEST}/horizon: no longer accepts integer"),
    "null refused": (at(REQUEST, "seed", type="integer"), f"{REQUEST}/seed: no longer accepts null"),
    "pattern added": (at(REQUEST, "item_id", pattern="^a"), f"{REQUEST}/item_id: pattern None → ^a"),
    "enum value removed": (
        lambda c: [c["schemas"]["Frequency"][key].pop(7) for key in ("enum", "x-enum-varnames")],
        "Frequency: no longer accepts '4h'",
    ),
    "enum where any text was": (
        at(REQUEST, "item_id", enum=["a"]),
        f"{REQUEST}/item_id: values None → ['a']",
    ),
    "enum member renamed": (
        setting("schemas", "OutputMode", "x-enum-varnames", value=["AVERAGE", "QUANTILES", "SAMPLES"]),
        "OutputMode: member MEAN is now called AVERAGE",
    ),
    "default changed": (at(REQUEST, "num_samples", default=100), f"{REQUEST}/num_samples: default 20 → 100"),
    "default removed": (
        at(REQUEST, "num_samples", default=None),
        f"{REQUEST}/num_samples: default 20 → none",
    ),
    "items bounded more tightly": (
        setting("schemas", "QuantileLevel", "exclusiveMinimum", value=0.1),
        "QuantileLevel: lower bound 0 excluded → 0.1 excluded",
    ),
    "one form of a union bounded": (
        lambda c: c["schemas"]["Series"]["anyOf"][0].update(maxItems=10),
        "Series: upper bound 1e+06 → 10",
    ),
    "one form of a union removed": (
        lambda c: c["schemas"]["Series"]["anyOf"].pop(),
        "Series[]: no longer accepts array",
    ),
    "further members refused": (
        setting("schemas", "Covariates", "additionalProperties", value=False),
        "Covariates: further members of one schema → none",
    ),
    "tensor of another type": (
        setting(
            "schemas",
            "SatelliteRequest",
            "properties",
            "pixels_b64",
            "x-sheaf-tensor",
            "dtype",
            value="float64",
        ),
        (
            "SatelliteRequest/pixels_b64: x-sheaf-tensor float32 (n_time, n_bands, height, width) → "
            "float64 (n_time, n_bands, height, width)"
        ),
    ),
    "rule added": (
        extend(
            "schemas",
            REQUEST,
            "x-sheaf-rules",
            value={"rule": "requires", "field": "item_id", "needs": ["start"]},
        ),
        f"{REQUEST}: new rule: `item_id` needs `start`",
    ),
    "rule that needs a new field beside an old one": (
        _with_needed_field,
        "RelaxRequest: new rule: `cutoff` is needed when `relax_cell` is true",
    ),
    "response field removed": (
        drop("schemas", RESPONSE, "properties", "point"),
        f"{RESPONSE}/point: removed",
    ),
    "response field no longer required": (
        drop("schemas", RESPONSE, "required", "mean"),
        f"{RESPONSE}/mean: no longer always there",
    ),
    "response may be null": (
        at(RESPONSE, "horizon", type=["integer", "null"]),
        f"{RESPONSE}/horizon: may now be null",
    ),
    "response has a further value": (
        extend("schemas", RESPONSE, "properties", "point", "enum", value="mode"),
        f"{RESPONSE}/point: may now be 'mode'",
    ),
    "response bound loosened": (at(RESPONSE, "horizon", minimum=0), f"{RESPONSE}/horizon: lower bound 1 → 0"),
    "response tensor may have gaps": (
        setting(
            *("schemas", "DepthResponse", "properties", "depth_b64", "x-sheaf-tensor", "missing"), value=True
        ),
        "DepthResponse/depth_b64: may now have missing values",
    ),
    "progress event of a stream loses a field": (
        drop("schemas", "ImageProgress", "properties", "preview_b64"),
        "ImageProgress/preview_b64: removed",
    ),
    "stream tells its steps by another event": (
        setting(
            "operations", "POST /{model_name}/audio/transcribe", "streams", "$ref", value="ProgressEvent"
        ),
        "AudioProgress/segments: removed",
    ),
    "model type removed": (
        drop("schemas", "AnyRequest", "discriminator", "mapping", "tabular"),
        "AnyRequest: tabular removed",
    ),
    "class renamed": (renamed("QuantileLevel", "Quantile"), "QuantileLevel: removed"),
    "code removed": (drop("problems", "overloaded"), "problem overloaded: removed"),
    "status changed": (
        setting("problems", "invalid", "status", value=400),
        "problem invalid: status 422 → 400",
    ),
    "exception renamed": (
        setting("problems", "invalid", "class", value="BadRequestError"),
        "problem invalid: class InvalidRequestError → BadRequestError",
    ),
    "fault code removed": (drop("faults", "not_finite"), "fault not_finite: removed"),
}


@pytest.mark.parametrize("kind", BREAKING)
def test_each_kind_of_change_is_told_once_with_its_place(contract: Contract, kind: str) -> None:
    change, line = BREAKING[kind]
    assert breaking_changes(contract, changed(contract, change)) == [line]


def _divided(contract: Contract, kind: str) -> None:
    """Put a union of two operations in the place of the one that depth had."""
    schemas, own, union = contract["schemas"], f"Depth{kind}", f"AnyDepth{kind}"
    members = [{"$ref": own}, {"$ref": f"Pose{kind}"}]
    schemas[union] = {"anyOf": members}
    schemas[f"Any{kind}"]["discriminator"]["mapping"]["depth"] = union
    branches = schemas[f"Any{kind}"]["oneOf"]
    branches[branches.index({"$ref": own})] = {"$ref": union}


def _with_rule_of_its_own(contract: Contract) -> None:
    schema = contract["schemas"][REQUEST]
    schema["properties"]["weights"] = {"type": ["array", "null"], "items": {"type": "number"}}
    schema["x-sheaf-rules"].append({"rule": "same_length", "field": "weights", "as": "history"})


ADDITIONS: dict[str, Callable[[Contract], object]] = {
    "nothing": dict.copy,
    "operation": lambda c: c["operations"].update({"GET /new": {"id": "new"}}),
    "optional request field": put(REQUEST, "unit", {"type": ["string", "null"], "default": None}),
    "optional request field with a rule of its own": _with_rule_of_its_own,
    "response field": put(RESPONSE, "unit", {"type": "string"}, required=True),
    "request bound loosened": at(REQUEST, "horizon", maximum=10**6, minimum=0),
    "request bound removed": at(REQUEST, "horizon", maximum=None),
    "request field optional": drop("schemas", REQUEST, "required", "horizon"),
    "request type widened": at(REQUEST, "horizon", type="number"),
    "request null allowed": at(REQUEST, "horizon", type=["integer", "null"]),
    "request enum value": extend("schemas", "Frequency", "enum", value="2h"),
    "request pattern removed": lambda c: c["schemas"]["ModelName"].pop("pattern"),
    "form of a union": lambda c: c["schemas"]["StaticCovariates"]["additionalProperties"]["anyOf"].append(
        {"type": "boolean"}
    ),
    "rule removed": lambda c: c["schemas"][REQUEST]["x-sheaf-rules"].pop(),
    "response always there": extend("schemas", RESPONSE, "required", value="point"),
    "response bound tightened": at(RESPONSE, "horizon", minimum=2),
    "response enum value removed": drop("schemas", RESPONSE, "properties", "point", "enum", "median"),
    "model type": lambda c: [
        c["schemas"][name]["discriminator"]["mapping"].update(antenna=f"Depth{name[3:]}")
        for name in ("AnyRequest", "AnyResponse")
    ],
    "operation of a type that had one": lambda c: [_divided(c, name) for name in ("Request", "Response")],
    "request tensor may have gaps": setting(
        "schemas", "PointCloudRequest", "properties", "points_b64", "x-sheaf-tensor", "missing", value=True
    ),
    "progress event of a stream that had the plain one": setting(
        *("operations", "POST /{model_name}/time_series/forecast", "streams", "$ref"), value="ImageProgress"
    ),
    "event": lambda c: c["schemas"]["AnyEvent"]["anyOf"].append({"$ref": "Health"}),
    "problem code": lambda c: c["problems"].update(paused={"status": 503, "class": "PausedError"}),
    "fault code": lambda c: c["faults"].append("too_dark"),
    "default for what had none": at("SatelliteRequest", "height", default=512),
    "whole number written as a fraction": at(REQUEST, "num_samples", default=20.0),
}


@pytest.mark.parametrize("kind", ADDITIONS)
def test_additions_pass(contract: Contract, kind: str) -> None:
    new = changed(contract, ADDITIONS[kind])
    assert kind == "nothing" or new != contract or kind.startswith("whole")
    assert breaking_changes(contract, new) == []


def test_a_response_and_its_result_event_are_one_change(contract: Contract) -> None:
    def change(new: Contract) -> None:
        for name in (RESPONSE, "TimeSeriesResultEvent"):
            del new["schemas"][name]["properties"]["point"]

    assert breaking_changes(contract, changed(contract, change)) == [f"{RESPONSE}/point: removed"]
