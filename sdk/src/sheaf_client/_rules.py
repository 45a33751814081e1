"""Executes the cross-field rules of the schema (`x-sheaf-rules`), compiled once per contract class.

Each rule is a small function from a contract to its faults. `clients/typescript/src/rules.ts` executes
the same table; the cases in schema/cases hold both to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, LiteralString, cast

Loc = tuple[str | int, ...]
#: Code, location and message of one fault.
Finding = tuple[LiteralString, Loc, str]
Rule = Callable[[Any], Iterable[Finding]]
#: Rules that say nothing of a `field` that is not given, as most are not.
_OF_VALUES = {
    *("requires", "rectangular", "some_present", "index_within", "items_within", "unique", "unique_by"),
    *("increasing", "same_length", "length_equals", "keys_within", "same_keys", "same_width"),
    *("length_is_width", "boxes"),
}


def compile_rules(specs: Iterable[Mapping[str, Any]]) -> tuple[Rule, ...]:
    """Bind each entry of the table to its function; an unknown rule is a `KeyError`."""
    return tuple(_bind(spec) for spec in specs)


def _bind(spec: Mapping[str, Any]) -> Rule:
    check = _RULES[spec["rule"]]
    if spec["rule"] not in _OF_VALUES:
        return lambda model: check(model, spec)
    name: str = spec["field"].partition(".*")[0].removesuffix("_b64")
    return lambda model: () if getattr(model, name) is None else check(model, spec)


def _values(model: Any, path: str) -> Iterator[tuple[Loc, Any]]:
    """The value at `field`, or each member of the mapping at `field.*`; nothing where it is not given."""
    field, star, _ = path.partition(".*")
    value = _get(model, field)
    if value is None:
        return
    if not star:
        yield (field,), value
    else:
        yield from (((field, key), item) for key, item in value.items())


def _get(model: Any, wire: str) -> Any:
    """The value of a field by its wire name; binary fields are called without the suffix in Python."""
    return getattr(model, wire.removesuffix("_b64"))


def _given(model: Any, fields: Sequence[str]) -> list[str]:
    return [name for name in fields if _get(model, name) is not None]


def _width(rows: Any) -> int:
    """Columns of a table; 1 for a list of plain values."""
    return len(rows[0]) if rows and isinstance(rows[0], list) else 1


def _exactly_one_of(model: Any, spec: Mapping[str, Any]) -> Iterator[Finding]:
    if "unless" in spec and _get(model, spec["unless"]):
        return
    if len(given := _given(model, spec["fields"])) != 1:
        yield (
            "exactly_one_of",
            (),
            f"Give exactly one of {_listed(spec['fields'])}; {_listed(given) or 'none'} given.",
        )


def _at_most_one_of(model: Any, spec: Mapping[str, Any]) -> Iterator[Finding]:
    if len(given := _given(model, spec["fields"])) > 1:
        yield "at_most_one_of", (given[1],), f"Give at most one of {_listed(spec['fields'])}."


def _requires(model: Any, spec: Mapping[str, Any]) -> Iterator[Finding]:
    for _ in _values(model, spec["field"]):
        for need in spec["needs"]:
            if _get(model, need) is None:
                yield "requires", (need,), f"Needed with {spec['field']}."


def _rectangular(model: Any, spec: Mapping[str, Any]) -> Iterator[Finding]:
    for loc, rows in _values(model, spec["field"]):
        if rows and isinstance(rows[0], list):
            width = len(rows[0])
            for i, row in enumerate(rows):
                if len(row) != width:
                    yield "rectangular", (*loc, i), f"Row {i} has {len(row)} values, row 0 has {width}."
                    return


def _some_present(model: Any, spec: Mapping[str, Any]) -> Iterator[Finding]:
    for loc, rows in _values(model, spec["field"]):
        items = (item for row in rows for item in _items(row))
        if all(item is None for item in items):
            yield "some_present", loc, "At least one value must not be null."


def _index_within(model: Any, spec: Mapping[str, Any]) -> Iterator[Finding]:
    for _, rows in _values(model, spec["of"]):
        width = _width(rows)
        for loc, index in _values(model, spec["field"]):
            if index >= width:
                yield "index_within", loc, f"Must be below {width}, the number of columns of {spec['of']}."


def _unique(model: Any, spec: Mapping[str, Any]) -> Iterator[Finding]:
    for loc, items in _values(model, spec["field"]):
        seen: set[Any] = set()
        for i, item in enumerate(items):
            if item in seen:
                yield "unique", (*loc, i), "Repeats an earlier item."
                return
            seen.add(item)


def _increasing(model: Any, spec: Mapping[str, Any]) -> Iterator[Finding]:
    for loc, items in _values(model, spec["field"]):
        for i in range(1, len(items)):
            if not _later(items[i], items[i - 1]):
                yield "increasing", (*loc, i), "Must come after the item before it."
                return


def _later(after: Any, before: Any) -> bool:
    try:
        return bool(after > before)
    except TypeError:  # one time with an offset, one without: they have no order
        return False


def _same_length(model: Any, spec: Mapping[str, Any]) -> Iterator[Finding]:
    for _, reference in _values(model, spec["as"]):
        for loc, items in _values(model, spec["field"]):
            if len(items) != len(reference):
                message = f"Has {len(items)} items; {spec['as']} has {len(reference)}."
                yield "same_length", loc, message


def _length_equals(model: Any, spec: Mapping[str, Any]) -> Iterator[Finding]:
    expected = _get(model, spec["value"])
    for loc, items in _values(model, spec["field"]):
        if len(items) != expected:
            yield "length_equals", loc, f"Has {len(items)} items; {spec['value']} is {expected}."


def _keys_within(model: Any, spec: Mapping[str, Any]) -> Iterator[Finding]:
    allowed: Mapping[str, Any] = getattr(model, spec["of"]) or {}
    for loc, mapping in _values(model, spec["field"]):
        for key in mapping:
            if key not in allowed:
                yield "keys_within", (*loc, key), f"Not among the names in {spec['of']}."


def _items(row: Any) -> Sequence[Any]:
    """The values of one row; a series of one variate has a bare value for a row."""
    return cast("Sequence[Any]", row) if isinstance(row, list) else (row,)


def _at_least_one_of(model: Any, spec: Mapping[str, Any]) -> Iterator[Finding]:
    if not _given(model, spec["fields"]):
        yield "at_least_one_of", (), f"Give at least one of {_listed(spec['fields'])}."


def _items_within(model: Any, spec: Mapping[str, Any]) -> Iterator[Finding]:
    for _, rows in _values(model, spec["of"]):
        width = _width(rows)
        for loc, items in _values(model, spec["field"]):
            for i, item in enumerate(items):
                if not 0 <= item < width:
                    message = f"Must be below {width}, the number of columns of {spec['of']}."
                    yield "items_within", (*loc, i), message
                    return


def _same_width(model: Any, spec: Mapping[str, Any]) -> Iterator[Finding]:
    for _, reference in _values(model, spec["as"]):
        for loc, rows in _values(model, spec["field"]):
            if _width(rows) != _width(reference):
                message = f"Has {_width(rows)} columns; {spec['as']} has {_width(reference)}."
                yield "same_width", loc, message


def _length_is_width(model: Any, spec: Mapping[str, Any]) -> Iterator[Finding]:
    for _, rows in _values(model, spec["of"]):
        for loc, items in _values(model, spec["field"]):
            if len(items) != _width(rows):
                message = f"Has {len(items)} items; {spec['of']} has {_width(rows)} columns."
                yield "length_is_width", loc, message


def _same_keys(model: Any, spec: Mapping[str, Any]) -> Iterator[Finding]:
    reference: Mapping[str, Any] = _get(model, spec["as"]) or {}
    for loc, mapping in _values(model, spec["field"]):
        for key in mapping:
            if key not in reference:
                yield "same_keys", (*loc, key), f"Not among the names in {spec['as']}."
                return
        for key in reference:
            if key not in mapping:
                yield "same_keys", loc, f"{key} is missing; {spec['as']} has it."
                return


def _value_requires(model: Any, spec: Mapping[str, Any]) -> Iterator[Finding]:
    if _get(model, spec["field"]) == spec["value"] and _get(model, spec["needs"]) != spec["equals"]:
        message = f"{spec['value']} is for {spec['needs']} {spec['equals']} alone."
        yield "value_requires", (spec["field"],), message


def _numbers_when(model: Any, spec: Mapping[str, Any]) -> Iterator[Finding]:
    if _get(model, spec["when"]) != spec["equals"]:
        return
    for loc, items in _values(model, spec["field"]):
        for i, item in enumerate(items):
            if not isinstance(item, int | float):
                message = f"Must be a number where {spec['when']} is {spec['equals']}."
                yield "numbers_when", (*loc, i), message
                return


def _some_filled(model: Any, spec: Mapping[str, Any]) -> Iterator[Finding]:
    if not any(_get(model, name) for name in spec["fields"]):
        yield "some_filled", (), f"At least one of {_listed(spec['fields'])} must not be empty."


def _filled_with(model: Any, spec: Mapping[str, Any]) -> Iterator[Finding]:
    if _get(model, spec["of"]) and not _get(model, spec["field"]):
        yield "filled_with", (spec["field"],), f"Must not be empty where {spec['of']} is not."


def _needed_when_true(model: Any, spec: Mapping[str, Any]) -> Iterator[Finding]:
    if "unless" in spec and _get(model, spec["unless"]) is not None:
        return
    if _is_true(_get(model, spec["flag"])) and _get(model, spec["field"]) is None:
        yield "needed_when_true", (spec["field"],), f"Needed when {spec['flag']} is true."


def _not_true_beside(model: Any, spec: Mapping[str, Any]) -> Iterator[Finding]:
    if _is_true(_get(model, spec["field"])) and _get(model, spec["other"]) is not None:
        yield "not_true_beside", (spec["field"],), f"Must not be true beside {spec['other']}."


def _is_true(flag: Any) -> bool:
    """Whether a flag is true, or one of several."""
    return any(cast("list[bool]", flag if isinstance(flag, list) else [flag]))


def _boxes(model: Any, spec: Mapping[str, Any]) -> Iterator[Finding]:
    for loc, boxes in _values(model, spec["field"]):
        many = bool(boxes) and isinstance(boxes[0], list)
        for i, box in enumerate(boxes if many else [boxes]):
            if len(box) == 4 and not (box[0] < box[2] and box[1] < box[3]):
                message = "Must be x_min, y_min, x_max, y_max with x_min < x_max and y_min < y_max."
                yield "boxes", (*loc, i) if many else loc, message
                return


def _unique_by(model: Any, spec: Mapping[str, Any]) -> Iterator[Finding]:
    for loc, items in _values(model, spec["field"]):
        seen: set[Any] = set()
        for i, item in enumerate(items):
            value = getattr(item, spec["member"])
            if value in seen:
                yield "unique_by", (*loc, i, spec["member"]), "Repeats that of an earlier item."
                return
            seen.add(value)


def _some_true(model: Any, spec: Mapping[str, Any]) -> Iterator[Finding]:
    if not any(_get(model, name) for name in spec["fields"]):
        yield "some_true", (), f"At least one of {_listed(spec['fields'])} must be true."


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)


_RULES: dict[str, Callable[[Any, Mapping[str, Any]], Iterator[Finding]]] = {
    "exactly_one_of": _exactly_one_of,
    "at_most_one_of": _at_most_one_of,
    "requires": _requires,
    "rectangular": _rectangular,
    "some_present": _some_present,
    "index_within": _index_within,
    "unique": _unique,
    "increasing": _increasing,
    "same_length": _same_length,
    "length_equals": _length_equals,
    "keys_within": _keys_within,
    "at_least_one_of": _at_least_one_of,
    "items_within": _items_within,
    "same_width": _same_width,
    "length_is_width": _length_is_width,
    "same_keys": _same_keys,
    "value_requires": _value_requires,
    "numbers_when": _numbers_when,
    "some_filled": _some_filled,
    "filled_with": _filled_with,
    "needed_when_true": _needed_when_true,
    "not_true_beside": _not_true_beside,
    "boxes": _boxes,
    "unique_by": _unique_by,
    "some_true": _some_true,
}
