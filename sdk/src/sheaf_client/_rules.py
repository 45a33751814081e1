"""Executes the cross-field rules of the schema (`x-sheaf-rules`), compiled once per contract class.

Compiling a rule leaves a function with the names of its fields in it, which is called only where its field is
given. Every request runs these, so each settles the sound case first, without a generator and where it can
in C. `clients/typescript/src/rules.ts` executes the same table; the cases in schema/cases hold both to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from operator import lt
from typing import Any, LiteralString, TypeAlias, cast

Loc: TypeAlias = tuple[str | int, ...]
#: Code, location and message of one fault.
Finding: TypeAlias = tuple[LiteralString, Loc, str]
#: The fields of a contract by their names in Python.
Fields: TypeAlias = Mapping[str, Any]
#: From the fields, the value that a rule is about and its location to its faults.
Check: TypeAlias = Callable[[Fields, Any, Loc], Sequence[Finding]]
Spec: TypeAlias = Mapping[str, Any]
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
    if rule in _OF_CONTRACT:
        return None, (), _OF_CONTRACT[rule](spec)
    check = _OF_VALUE_ALONE.get(rule) or _OF_VALUE[rule](spec)
    field, star, _ = spec["field"].partition(".*")
    return _name(field), (field,), _of_members(check) if star else check


def _of_members(check: Check) -> Check:
    """The check of each member of a mapping."""

    def check_each(fields: Fields, members: Mapping[str, Any], at: Loc) -> Sequence[Finding]:
        return [fault for key, item in members.items() for fault in check(fields, item, (*at, key))]

    return check_each


def _name(wire: str) -> str:
    """The name of a field in Python, where binary fields are called without the suffix."""
    return wire.removesuffix("_b64")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def _width(rows: Any) -> int:
    """Columns of a table; 1 for a list of plain values."""
    return len(rows[0]) if rows and isinstance(rows[0], list) else 1


# Rules about a contract: they look at several fields, given or not.


def _exactly_one_of(spec: Spec) -> Check:
    wires, unless = spec["fields"], _name(spec.get("unless", ""))
    names = [*map(_name, wires)]

    def check(fields: Fields, _: Any, at: Loc) -> Sequence[Finding]:
        given = 0
        for name in names:
            if fields[name] is not None:
                given += 1
        if given == 1 or (unless and fields[unless]):
            return ()
        listed = _listed(_given(wires, fields)) or "none"
        return (("exactly_one_of", at, f"Give exactly one of {_listed(wires)}; {listed} given."),)

    return check


def _at_most_one_of(spec: Spec) -> Check:
    wires = spec["fields"]
    names = [*map(_name, wires)]

    def check(fields: Fields, _: Any, at: Loc) -> Sequence[Finding]:
        given = 0
        for name in names:
            if fields[name] is not None:
                given += 1
        if given < 2:
            return ()
        second = _given(wires, fields)[1]
        return (("at_most_one_of", (*at, second), f"Give at most one of {_listed(wires)}."),)

    return check


def _at_least_one_of(spec: Spec) -> Check:
    wires = spec["fields"]

    def check(fields: Fields, _: Any, at: Loc) -> Sequence[Finding]:
        if _given(wires, fields):
            return ()
        return (("at_least_one_of", at, f"Give at least one of {_listed(wires)}."),)

    return check


def _given(wires: Sequence[str], fields: Fields) -> list[str]:
    return [wire for wire in wires if fields[_name(wire)] is not None]


def _some_filled(spec: Spec) -> Check:
    message = f"At least one of {_listed(spec['fields'])} must not be empty."
    return _any_of(spec, ("some_filled", (), message))


def _some_true(spec: Spec) -> Check:
    return _any_of(spec, ("some_true", (), f"At least one of {_listed(spec['fields'])} must be true."))


def _any_of(spec: Spec, fault: Finding) -> Check:
    among = [_name(wire) for wire in spec["fields"]]

    def check(fields: Fields, *_: Any) -> Sequence[Finding]:
        return () if any(fields[name] for name in among) else (fault,)

    return check


def _filled_with(spec: Spec) -> Check:
    field, name, other = spec["field"], _name(spec["field"]), _name(spec["of"])

    def check(fields: Fields, *_: Any) -> Sequence[Finding]:
        if fields[name] or not fields[other]:
            return ()
        return (("filled_with", (field,), f"Must not be empty where {spec['of']} is not."),)

    return check


def _needed_when_true(spec: Spec) -> Check:
    field, name, flag = spec["field"], _name(spec["field"]), _name(spec["flag"])
    spared = _name(spec["unless"]) if "unless" in spec else None

    def check(fields: Fields, *_: Any) -> Sequence[Finding]:
        if not _is_true(fields[flag]) or fields[name] is not None:
            return ()
        if spared is not None and fields[spared] is not None:
            return ()
        return (("needed_when_true", (field,), f"Needed when {spec['flag']} is true."),)

    return check


def _not_true_beside(spec: Spec) -> Check:
    field, flag, other = spec["field"], _name(spec["field"]), _name(spec["other"])

    def check(fields: Fields, *_: Any) -> Sequence[Finding]:
        if fields[other] is None or not _is_true(fields[flag]):
            return ()
        return (("not_true_beside", (field,), f"Must not be true beside {spec['other']}."),)

    return check


def _is_true(flag: Any) -> bool:
    """Whether a flag is true, or one of several."""
    return flag is True or bool(flag and any(flag))


def _value_requires(spec: Spec) -> Check:
    field, name, needed = spec["field"], _name(spec["field"]), _name(spec["needs"])

    def check(fields: Fields, *_: Any) -> Sequence[Finding]:
        if fields[name] != spec["value"] or fields[needed] == spec["equals"]:
            return ()
        message = f"{spec['value']} is for {spec['needs']} {spec['equals']} alone."
        return (("value_requires", (field,), message),)

    return check


# Rules about the value of a field.


def _requires(spec: Spec) -> Check:
    needs = [(wire, _name(wire)) for wire in spec["needs"]]

    def check(fields: Fields, *_: Any) -> Sequence[Finding]:
        message = f"Needed with {spec['field']}."
        return [("requires", (wire,), message) for wire, name in needs if fields[name] is None]

    return check


def _rectangular(_: Fields, rows: Any, at: Loc) -> Sequence[Finding]:
    if not rows or not isinstance(rows[0], list):
        return ()
    widths = list(map(len, rows))
    width = widths[0]
    if widths.count(width) == len(widths):
        return ()
    i = next(i for i, other in enumerate(widths) if other != width)
    return (("rectangular", (*at, i), f"Row {i} has {widths[i]} values, row 0 has {width}."),)


def _some_present(_: Fields, rows: Any, at: Loc) -> Sequence[Finding]:
    for row in rows:
        # A series of one variate has a bare value for a row.
        for item in cast("Sequence[Any]", row) if isinstance(row, list) else (row,):
            if item is not None:
                return ()
    return (("some_present", at, "At least one value must not be null."),)


def _unique(_: Fields, items: Any, at: Loc) -> Sequence[Finding]:
    if len(set(items)) == len(items):
        return ()
    return (("unique", (*at, _repeat(items)), "Repeats an earlier item."),)


def _unique_by(spec: Spec) -> Check:
    member = spec["member"]

    def check(_: Fields, items: Any, at: Loc) -> Sequence[Finding]:
        values = [getattr(item, member) for item in items]
        if len(set(values)) == len(values):
            return ()
        return (("unique_by", (*at, _repeat(values), member), "Repeats that of an earlier item."),)

    return check


def _repeat(items: Sequence[Any]) -> int:
    """The place of the first item that repeats an earlier one."""
    seen: set[Any] = set()
    for i, item in enumerate(items):
        if item in seen:
            return i
        seen.add(item)
    raise ValueError("no item repeats another")


def _increasing(_: Fields, items: Sequence[Any], at: Loc) -> Sequence[Finding]:
    try:
        if all(map(lt, items, islice(items, 1, None))):
            return ()
    except TypeError:  # some have no order; the first that does not come after its neighbour is told
        pass
    i = next(i for i in range(1, len(items)) if not _later(items[i], items[i - 1]))
    return (("increasing", (*at, i), "Must come after the item before it."),)


def _later(after: Any, before: Any) -> bool:
    try:
        return bool(after > before)
    except TypeError:  # one time with an offset, one without: they have no order
        return False


def _index_within(spec: Spec) -> Check:
    table = _name(spec["of"])

    def check(fields: Fields, index: int, at: Loc) -> Sequence[Finding]:
        rows = fields[table]
        if rows is None or index < (width := _width(rows)):
            return ()
        return (("index_within", at, f"Must be below {width}, the number of columns of {spec['of']}."),)

    return check


def _items_within(spec: Spec) -> Check:
    table = _name(spec["of"])

    def check(fields: Fields, items: Sequence[int], at: Loc) -> Sequence[Finding]:
        rows = fields[table]
        if rows is None:
            return ()
        width = _width(rows)
        for i, item in enumerate(items):
            if not 0 <= item < width:
                message = f"Must be below {width}, the number of columns of {spec['of']}."
                return (("items_within", (*at, i), message),)
        return ()

    return check


def _sizes_agree(
    code: LiteralString, member: str, size: Callable[[Any], int], other_size: Callable[[Any], int], text: str
) -> Callable[[Spec], Check]:
    """A rule that a value is as large as that of the field which `member` of the rule names."""

    def compile_rule(spec: Spec) -> Check:
        other = _name(spec[member])

        def check(fields: Fields, value: Any, at: Loc) -> Sequence[Finding]:
            reference = fields[other]
            if reference is None or size(value) == other_size(reference):
                return ()
            return ((code, at, text.format(size(value), spec[member], other_size(reference))),)

        return check

    return compile_rule


def _length_equals(spec: Spec) -> Check:
    count = _name(spec["value"])

    def check(fields: Fields, items: Any, at: Loc) -> Sequence[Finding]:
        if len(items) == fields[count]:
            return ()
        return (("length_equals", at, f"Has {len(items)} items; {spec['value']} is {fields[count]}."),)

    return check


def _keys_within(spec: Spec) -> Check:
    other = _name(spec["of"])

    def check(fields: Fields, mapping: Mapping[str, Any], at: Loc) -> Sequence[Finding]:
        allowed: Mapping[str, Any] = fields[other] or {}
        message = f"Not among the names in {spec['of']}."
        return [("keys_within", (*at, key), message) for key in mapping if key not in allowed]

    return check


def _same_keys(spec: Spec) -> Check:
    other = _name(spec["as"])

    def check(fields: Fields, mapping: Mapping[str, Any], at: Loc) -> Sequence[Finding]:
        reference: Mapping[str, Any] = fields[other] or {}
        for key in mapping:
            if key not in reference:
                return (("same_keys", (*at, key), f"Not among the names in {spec['as']}."),)
        for key in reference:
            if key not in mapping:
                return (("same_keys", at, f"{key} is missing; {spec['as']} has it."),)
        return ()

    return check


def _numbers_when(spec: Spec) -> Check:
    when, equals = _name(spec["when"]), spec["equals"]

    def check(fields: Fields, items: Sequence[Any], at: Loc) -> Sequence[Finding]:
        if fields[when] != equals or {*map(type, items)} <= {int, float}:
            return ()
        for i, item in enumerate(items):
            if not isinstance(item, int | float):
                message = f"Must be a number where {spec['when']} is {equals}."
                return (("numbers_when", (*at, i), message),)
        return ()

    return check


def _boxes(_: Fields, boxes: Any, at: Loc) -> Sequence[Finding]:
    many = bool(boxes) and isinstance(boxes[0], list)
    for i, box in enumerate(boxes if many else [boxes]):
        if len(box) == 4 and not (box[0] < box[2] and box[1] < box[3]):
            message = "Must be x_min, y_min, x_max, y_max with x_min < x_max and y_min < y_max."
            return (("boxes", (*at, i) if many else at, message),)
    return ()


_OF_CONTRACT: dict[str, Callable[[Spec], Check]] = {
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
_OF_VALUE_ALONE: dict[str, Check] = {
    "rectangular": _rectangular,
    "some_present": _some_present,
    "unique": _unique,
    "increasing": _increasing,
    "boxes": _boxes,
}
_OF_VALUE: dict[str, Callable[[Spec], Check]] = {
    "requires": _requires,
    "unique_by": _unique_by,
    "index_within": _index_within,
    "items_within": _items_within,
    "same_length": _sizes_agree("same_length", "as", len, len, "Has {} items; {} has {}."),
    "length_equals": _length_equals,
    "same_width": _sizes_agree("same_width", "as", _width, _width, "Has {} columns; {} has {}."),
    "length_is_width": _sizes_agree("length_is_width", "of", len, _width, "Has {} items; {} has {} columns."),
    "keys_within": _keys_within,
    "same_keys": _same_keys,
    "numbers_when": _numbers_when,
}
