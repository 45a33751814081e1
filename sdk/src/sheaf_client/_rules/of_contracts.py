"""Rules about a whole contract: they look at several fields, given or not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sheaf_client._rules.terms import Check, Fields, Finding, Loc, Spec, listed, python_name


def _exactly_one_of(spec: Spec) -> Check:
    wires, unless = spec["fields"], python_name(spec.get("unless", ""))
    names = [*map(python_name, wires)]

    def check(fields: Fields, _: Any, at: Loc) -> Sequence[Finding]:
        given = 0
        for name in names:
            if fields[name] is not None:
                given += 1
        if given == 1 or (unless and fields[unless]):
            return ()
        there = listed(_given(wires, fields)) or "none"
        return (("exactly_one_of", at, f"Give exactly one of {listed(wires)}; {there} given."),)

    return check


def _at_most_one_of(spec: Spec) -> Check:
    wires = spec["fields"]
    names = [*map(python_name, wires)]

    def check(fields: Fields, _: Any, at: Loc) -> Sequence[Finding]:
        given = 0
        for name in names:
            if fields[name] is not None:
                given += 1
        if given < 2:
            return ()
        second = _given(wires, fields)[1]
        return (("at_most_one_of", (*at, second), f"Give at most one of {listed(wires)}."),)

    return check


def _at_least_one_of(spec: Spec) -> Check:
    wires = spec["fields"]

    def check(fields: Fields, _: Any, at: Loc) -> Sequence[Finding]:
        if _given(wires, fields):
            return ()
        return (("at_least_one_of", at, f"Give at least one of {listed(wires)}."),)

    return check


def _given(wires: Sequence[str], fields: Fields) -> list[str]:
    return [wire for wire in wires if fields[python_name(wire)] is not None]


def _some_filled(spec: Spec) -> Check:
    message = f"At least one of {listed(spec['fields'])} must not be empty."
    return _any_of(spec, ("some_filled", (), message))


def _some_true(spec: Spec) -> Check:
    return _any_of(spec, ("some_true", (), f"At least one of {listed(spec['fields'])} must be true."))


def _any_of(spec: Spec, fault: Finding) -> Check:
    among = [python_name(wire) for wire in spec["fields"]]

    def check(fields: Fields, *_: Any) -> Sequence[Finding]:
        return () if any(fields[name] for name in among) else (fault,)

    return check


def _filled_with(spec: Spec) -> Check:
    field, name, other = spec["field"], python_name(spec["field"]), python_name(spec["of"])

    def check(fields: Fields, *_: Any) -> Sequence[Finding]:
        if fields[name] or not fields[other]:
            return ()
        return (("filled_with", (field,), f"Must not be empty where {spec['of']} is not."),)

    return check


def _needed_when_true(spec: Spec) -> Check:
    field, name, flag = spec["field"], python_name(spec["field"]), python_name(spec["flag"])
    spared = python_name(spec["unless"]) if "unless" in spec else None

    def check(fields: Fields, *_: Any) -> Sequence[Finding]:
        if not _is_true(fields[flag]) or fields[name] is not None:
            return ()
        if spared is not None and fields[spared] is not None:
            return ()
        return (("needed_when_true", (field,), f"Needed when {spec['flag']} is true."),)

    return check


def _not_true_beside(spec: Spec) -> Check:
    field, flag, other = spec["field"], python_name(spec["field"]), python_name(spec["other"])

    def check(fields: Fields, *_: Any) -> Sequence[Finding]:
        if fields[other] is None or not _is_true(fields[flag]):
            return ()
        return (("not_true_beside", (field,), f"Must not be true beside {spec['other']}."),)

    return check


def _is_true(flag: Any) -> bool:
    """Whether a flag is true, or one of several."""
    return flag is True or bool(flag and any(flag))


def _value_requires(spec: Spec) -> Check:
    field, name, needed = spec["field"], python_name(spec["field"]), python_name(spec["needs"])

    def check(fields: Fields, *_: Any) -> Sequence[Finding]:
        if fields[name] != spec["value"] or fields[needed] == spec["equals"]:
            return ()
        message = f"{spec['value']} is for {spec['needs']} {spec['equals']} alone."
        return (("value_requires", (field,), message),)

    return check


OF_CONTRACT: dict[str, Callable[[Spec], Check]] = {
    "exactly_one_of": _exactly_one_of,
    "at_most_one_of": _at_most_one_of,
    "at_least_one_of": _at_least_one_of,
    "some_filled": _some_filled,
    "some_true": _some_true,
    "filled_with": _filled_with,
    "needed_when_true": _needed_when_true,
    "not_true_beside": _not_true_beside,
    "value_requires": _value_requires,
}
