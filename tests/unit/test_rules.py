"""Rules that no contract has so far; the cases of schema/cases hold the others."""

from __future__ import annotations

from typing import Any

import pytest

from sheaf_client._rules import breaches, compile_rules


def found(spec: dict[str, Any], **members: Any) -> list[tuple[str, tuple[str | int, ...]]]:
    return [(code, loc) for code, loc, _ in breaches(compile_rules([spec]), members)]


def test_a_member_may_need_others() -> None:
    spec = {"rule": "requires", "field": "labels", "needs": ["points", "scale"]}
    missing = [("requires", ("points",)), ("requires", ("scale",))]
    assert found(spec, labels=[1], points=None, scale=None) == missing
    assert found(spec, labels=[1], points=[], scale=None) == missing[1:]
    assert found(spec, labels=None, points=None, scale=None) == []


def test_an_unknown_rule_is_an_error() -> None:
    with pytest.raises(KeyError, match="coplanar"):
        compile_rules([{"rule": "coplanar", "field": "points"}])
