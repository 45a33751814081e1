"""Rules about the value of one field, where it is given; some look at another field beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from operator import lt
from typing import Any, LiteralString, cast

from sheaf_client._rules.terms import Check, Fields, Finding, Loc, Spec, python_name, width_of


def _requires(spec: Spec) -> Check:
    needs = [(wire, python_name(wire)) for wire in spec["needs"]]

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
    table = python_name(spec["of"])

    def check(fields: Fields, index: int, at: Loc) -> Sequence[Finding]:
        rows = fields[table]
        if rows is None or index < (width := width_of(rows)):
            return ()
        return (("index_within", at, f"Must be below {width}, the number of columns of {spec['of']}."),)

    return check


def _items_within(spec: Spec) -> Check:
    table = python_name(spec["of"])

    def check(fields: Fields, items: Sequence[int], at: Loc) -> Sequence[Finding]:
        rows = fields[table]
        if rows is None:
            return ()
        width = width_of(rows)
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
        other = python_name(spec[member])

        def check(fields: Fields, value: Any, at: Loc) -> Sequence[Finding]:
            reference = fields[other]
            if reference is None or size(value) == other_size(reference):
                return ()
            return ((code, at, text.format(size(value), spec[member], other_size(reference))),)

        return check

    return compile_rule


def _length_equals(spec: Spec) -> Check:
    count = python_name(spec["value"])

    def check(fields: Fields, items: Any, at: Loc) -> Sequence[Finding]:
        if len(items) == fields[count]:
            return ()
        return (("length_equals", at, f"Has {len(items)} items; {spec['value']} is {fields[count]}."),)

    return check


def _keys_within(spec: Spec) -> Check:
    other = python_name(spec["of"])

    def check(fields: Fields, mapping: Mapping[str, Any], at: Loc) -> Sequence[Finding]:
        allowed: Mapping[str, Any] = fields[other] or {}
        message = f"Not among the names in {spec['of']}."
        return [("keys_within", (*at, key), message) for key in mapping if key not in allowed]

    return check


def _same_keys(spec: Spec) -> Check:
    other = python_name(spec["as"])

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
    when, equals = python_name(spec["when"]), spec["equals"]

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


OF_VALUE_ALONE: dict[str, Check] = {
    "rectangular": _rectangular,
    "some_present": _some_present,
    "unique": _unique,
    "increasing": _increasing,
    "boxes": _boxes,
}
OF_VALUE: dict[str, Callable[[Spec], Check]] = {
    "requires": _requires,
    "unique_by": _unique_by,
    "index_within": _index_within,
    "items_within": _items_within,
    "same_length": _sizes_agree("same_length", "as", len, len, "Has {} items; {} has {}."),
    "length_equals": _length_equals,
    "same_width": _sizes_agree("same_width", "as", width_of, width_of, "Has {} columns; {} has {}."),
    "length_is_width": _sizes_agree(
        "length_is_width", "of", len, width_of, "Has {} items; {} has {} columns."
    ),
    "keys_within": _keys_within,
    "same_keys": _same_keys,
    "numbers_when": _numbers_when,
}
