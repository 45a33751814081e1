"""Turns Pydantic's validation errors into faults: the schema's codes and JSON Pointers into the body.

Pydantic names the branches of a union inside an error's location and reports each branch's complaints;
a caller wants the place in the body and the complaint of the branch that was meant.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from sheaf_client.contracts.problem import Fault
from sheaf_client.errors import InvalidRequestError

#: Most faults that are told; a long series of wrong numbers is one mistake.
MAX_FAULTS = 20

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
_BOUNDS = {"greater_than", "greater_than_equal", "less_than", "less_than_equal", "multiple_of"}
Loc = tuple[str | int, ...]


def pointer(loc: Iterable[str | int]) -> str:
    """JSON Pointer (RFC 6901) of a location."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in loc)


def faults_of(error: ValidationError, body: Any) -> list[Fault]:
    """The faults of `body`, at most `MAX_FAULTS`, in the order of the contract's fields."""
    groups: dict[Loc, dict[Loc, list[tuple[Loc, Any]]]] = {}
    for item in error.errors(include_url=False, include_input=False):
        path, branch, root = _walk(item["loc"], body)
        groups.setdefault(root if branch else path, {}).setdefault(branch, []).append((path, item))
    return list(_pick(groups))[:MAX_FAULTS]


def invalid_request(error: ValidationError, body: Any, request_id: str | None = None) -> InvalidRequestError:
    """The exception that carries the faults of a body."""
    faults = faults_of(error, body)
    count = error.error_count()
    detail = "The request is invalid." if count == 1 else f"The request is invalid in {len(faults)} places."
    return InvalidRequestError(detail, errors=faults, request_id=request_id)


def _walk(loc: Loc, body: Any) -> tuple[Loc, Loc, Loc]:
    """Split a location into the path in the body, the union branches on the way, and where those began."""
    path: list[str | int] = []
    branch: list[str | int] = []
    root: Loc = ()
    here = body
    for position, part in enumerate(loc):
        found, there = _step(here, part)
        if found:
            path.append(part)
            here = there
        elif position == len(loc) - 1 and not isinstance(part, int) and _is_object(here) and "[" not in part:
            path.append(part)  # a member that is missing
        else:
            root = root if branch else tuple(path)
            branch.append(part)
    return tuple(path), tuple(branch), root


def _is_object(here: Any) -> bool:
    return isinstance(here, Mapping | BaseModel)


def _step(here: Any, part: str | int) -> tuple[bool, Any]:
    if isinstance(here, Mapping) and part in here:
        return True, here[part]
    if isinstance(here, list | tuple) and isinstance(part, int) and part < len(here):
        return True, here[part]
    if isinstance(here, BaseModel) and isinstance(part, str) and part in type(here).model_fields:
        return True, getattr(here, part)
    return False, None


def _pick(groups: Mapping[Loc, Mapping[Loc, list[tuple[Loc, Any]]]]) -> Iterator[Fault]:
    """Of the branches of one union keep the one whose complaints lie deepest: it is what was meant."""
    for branches in groups.values():
        # Depth first, then the fewest complaints.
        best = max(branches.values(), key=lambda found: (max(len(path) for path, _ in found), -len(found)))
        for path, item in best:
            yield Fault(code=_code(item["type"]), path=pointer(path), message=_message(item))


def _code(kind: str) -> str:
    if kind in _CODES:
        return _CODES[kind]
    if kind in _BOUNDS:
        return "out_of_range"
    if kind.startswith(("uuid_", "date_", "datetime_")) and not kind.endswith("_type"):
        return "bad_format"
    if kind.endswith(("_type", "_parsing", "_from_float")) or kind in ("none_required", "is_instance_of"):
        return "wrong_type"
    return kind


def _message(item: Mapping[str, Any]) -> str:
    text: str = item["msg"]
    return text if text.endswith(".") else f"{text}."
