"""Executes the cross-field rules of the schema (`x-sheaf-rules`), compiled once per contract class.

Compiling a rule leaves a function with the names of its fields in it, which is called only where its field is
given. Every request runs these, so each settles the sound case first, without a generator and where it can
in C. `clients/typescript/src/rules.ts` executes the same table; the cases in schema/cases hold both to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from sheaf_client._rules.of_contracts import OF_CONTRACT
from sheaf_client._rules.of_values import OF_VALUE, OF_VALUE_ALONE
from sheaf_client._rules.terms import Check, Fields, Finding, Loc, Spec, python_name

#: A compiled rule: its field, None where it is about the whole contract, and the location and check of that.
Rule: TypeAlias = tuple[str | None, Loc, Check]


def compile_rules(specs: Iterable[Spec]) -> tuple[Rule, ...]:
    """Bind each entry of the table to its function; an unknown rule is a `KeyError`."""
    return tuple(_bind(spec) for spec in specs)


def breaches(rules: Sequence[Rule], fields: Fields) -> list[Finding]:
    """The faults that rules find in the fields of a contract, in the order of the rules."""
    found: list[Finding] = []
    for name, at, check in rules:
        value = fields if name is None else fields[name]
        if value is not None and (faults := check(fields, value, at)):
            found += faults
    return found


def _bind(spec: Spec) -> Rule:
    rule = spec["rule"]
    if rule in OF_CONTRACT:
        return None, (), OF_CONTRACT[rule](spec)
    check = OF_VALUE_ALONE.get(rule) or OF_VALUE[rule](spec)
    field, star, _ = spec["field"].partition(".*")
    return python_name(field), (field,), _of_members(check) if star else check


def _of_members(check: Check) -> Check:
    """The check of each member of a mapping."""

    def check_each(fields: Fields, members: Mapping[str, Any], at: Loc) -> Sequence[Finding]:
        return [fault for key, item in members.items() for fault in check(fields, item, (*at, key))]

    return check_each
