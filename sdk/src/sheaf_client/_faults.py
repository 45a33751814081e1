"""Turns Pydantic's validation errors into faults: the schema's codes and JSON Pointers into the body.

Pydantic names the branches of a union inside an error's location and reports each branch's complaints;
a caller wants the place in the body and the complaint of the branch that was meant.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from sheaf_client.contracts.problem import Fault
from sheaf_client.errors import InvalidRequestError

#: Most faults that are told.
MAX_FAULTS = 20
#: Longest path and message of a fault.
MAX_TEXT = 512

_CODES = {
    "missing": "missing",
    "extra_forbidden": "unknown_field",
    "finite_number": "not_finite",
    "enum": "not_allowed",
    "literal_error": "not_allowed",
    "too_short": "too_short",
    "string_too_short": "too_short",
    "too_long": "too_long",
    "string_too_long": "too_long",
    "string_pattern_mismatch": "bad_format",
    "bad_format": "bad_format",
}
_BOUNDS = {
    *("greater_than", "greater_than_equal", "less_than", "less_than_equal"),
    *("multiple_of", "int_parsing_size"),
}
#: Kinds of error whose place is a member that is not there.
_ABSENT = {"missing", "requires", "needed_when_true"}
#: How Pydantic says which kind of plain value it wants, and the kinds.
_WANTED = "Input should be a valid "
_KINDS = {"integer", "number", "string", "boolean"}
Loc = tuple[str | int, ...]


@dataclass(frozen=True)
class Found:
    """One complaint of Pydantic, with its place in the body."""

    path: Loc
    code: str
    message: str

    def fault(self) -> Fault:
        message = self.message if self.message.endswith(".") else f"{self.message}."
        # Names of members come from the caller, who may have made them as long as a body.
        return Fault(code=self.code, path=pointer(self.path)[:MAX_TEXT], message=message[:MAX_TEXT])


def pointer(loc: Iterable[str | int]) -> str:
    """JSON Pointer (RFC 6901) of a location."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in loc)


def faults_of(error: ValidationError, body: Any) -> list[Fault]:
    """The faults of `body`, at most `MAX_FAULTS`, in the order of the contract's fields.

    A body of another model type has that one fault: what else it lacks or has too much follows from it.
    A list has the faults of its first wrong item, for contracts look no further (`_bounded`).
    """
    groups: dict[Loc, dict[Loc, list[Found]]] = {}
    for item in error.errors(include_url=False, include_input=False):
        path, branch, root, value = _walk(item["loc"], body, missing=item["type"] in _ABSENT)
        if path == ("model_type",) and item["type"] == "literal_error" and isinstance(value, str):
            served = item.get("ctx", {}).get("expected", "").strip("'")
            return [Found(path, _code(item["type"], value), f"This model serves {served}.").fault()]
        place = root if branch else path
        if place not in groups and len(groups) == MAX_FAULTS:
            break  # each place has a fault of its own, and those of one union come together
        found = Found(path, _code(item["type"], value), item["msg"])
        groups.setdefault(place, {}).setdefault(branch, []).append(found)
    meant = [found for branches in groups.values() for found in _meant(list(branches.values()))]
    return [found.fault() for found in meant[:MAX_FAULTS]]


def invalid_request(error: ValidationError, body: Any, request_id: str | None = None) -> InvalidRequestError:
    """The exception that carries the faults of a body."""
    faults = faults_of(error, body)
    detail = (
        "The request is invalid." if len(faults) == 1 else f"The request is invalid in {len(faults)} places."
    )
    return InvalidRequestError(detail, errors=faults, request_id=request_id)


def _walk(loc: Loc, body: Any, *, missing: bool) -> tuple[Loc, Loc, Loc, Any]:
    """Split a location: the path in the body, the union branches on it, where those began, and the value."""
    path: list[str | int] = []
    branch: list[str | int] = []
    root: Loc = ()
    here = body
    for position, part in enumerate(loc):
        found, there = _step(here, part)
        if found:
            path.append(part)
            here = there
        elif missing and position == len(loc) - 1:
            path.append(part)
        else:
            root = root if branch else tuple(path)
            branch.append(part)
    return tuple(path), tuple(branch), root, here


def _step(here: Any, part: str | int) -> tuple[bool, Any]:
    if isinstance(here, BaseModel):
        here = {name: getattr(here, name) for name in type(here).model_fields}
    if isinstance(here, Mapping):
        members = cast("Mapping[str | int, Any]", here)
        return part in members, members.get(part)
    if isinstance(here, list | tuple) and isinstance(part, int):
        items = cast("Sequence[Any]", here)
        return (True, items[part]) if part < len(items) else (False, None)
    return False, None


def _meant(branches: Sequence[list[Found]]) -> list[Found]:
    """Of the branches of one union, the one that was meant.

    Its complaints lie deepest; then they say more than "wrong type"; then it got furthest in its lists; then
    they are fewest. Where each wants another kind of plain value, all of these kinds are named.
    """
    kinds = [found[0].message.removeprefix(_WANTED) for found in branches if len(found) == 1]
    if len(branches) > 1 and len(kinds) == len(branches):
        first = branches[0][0]
        if all(f.path == first.path and f.code == "wrong_type" for (f,) in branches) and set(kinds) <= _KINDS:
            kinds = [kind for kind in kinds if kind != "integer" or "number" not in kinds]
            return [replace(first, message=_WANTED + " or ".join(dict.fromkeys(kinds)))]

    return max(branches, key=_rank)


def _rank(found: Sequence[Found]) -> tuple[int, bool, list[int | float], int]:
    plain = all(f.code != "wrong_type" for f in found)
    # A list is too long where it had as many right items as it may have: it got further than to any of them.
    ways = [[*f.path, math.inf] if f.code == "too_long" else [*f.path] for f in found]
    steps = [-1 if isinstance(step, str) else step for step in ways[0]]
    return max(map(len, ways)), plain, steps, -len(found)


def _code(kind: str, value: Any) -> str:
    if kind == "bad_format" and (value is None or isinstance(value, int | float | list | dict)):
        return "wrong_type"  # read from text, and this is none
    if kind in _CODES:
        return _CODES[kind]
    if kind in _BOUNDS:
        return "out_of_range"
    if kind.startswith(("uuid_", "date_", "datetime_")) and not kind.endswith("_type"):
        return "bad_format"
    if kind.endswith(("_type", "_parsing", "_from_float")) or kind in ("none_required", "is_instance_of"):
        return "not_finite" if isinstance(value, float) and not math.isfinite(value) else "wrong_type"
    return kind
