"""Rules that no contract has so far; the cases of schema/cases hold the others."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sheaf_client._rules import compile_rules


def breaches(spec: dict[str, Any], **members: Any) -> list[tuple[str, tuple[str | int, ...]]]:
    (rule,) = compile_rules([spec])
    return [(code, loc) for code, loc, _ in rule(SimpleNamespace(**members))]


def test_a_member_may_need_others() -> None:
    spec = {"rule": "requires", "field": "labels", "needs": ["points", "scale"]}
    missing = [("requires", ("points",)), ("requires", ("scale",))]
    assert breaches(spec, labels=[1], points=None, scale=None) == missing
    assert breaches(spec, labels=[1], points=[], scale=None) == missing[1:]
    assert breaches(spec, labels=None, points=None, scale=None) == []


def test_an_unknown_rule_is_an_error() -> None:
    with pytest.raises(KeyError, match="coplanar"):
        compile_rules([{"rule": "coplanar", "field": "points"}])
