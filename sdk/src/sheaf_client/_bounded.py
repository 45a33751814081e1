"""Keeps what a wrong body costs near what a right one does: its faults are bounded before they are found.

Pydantic builds every fault of a value before one is told, at a hundred times the cost of what is right. So
the lists of contracts stop at their first wrong item, bodies are read by a validator that stops at the first
fault, and of what has one, the members that can only add faults are left out before all are looked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard, TypeVar, cast

from pydantic import ValidationError
from pydantic_core import SchemaValidator, core_schema

if TYPE_CHECKING:
    from sheaf_client._base import Model

ModelT = TypeVar("ModelT", bound="Model")
#: A value without the members that are too many to be told of.
Trim: TypeAlias = Callable[[Any], Any]

#: Unknown members of one object that are looked at, each a fault of its own.
_UNKNOWN = 20
#: What is data in a core schema, and no schema.
_DATA = frozenset({"metadata", "default", "expected", "ref", "serialization"})


def stop_at_first(schema: Any) -> None:
    """Have the lists in a core schema, and mappings of any length, stop at the first item that is wrong."""
    if isinstance(schema, dict):
        members = cast("dict[str, Any]", schema)
        kind = members.get("type")  # of a field called `type` this is a schema, no name
        if kind == "list" or (kind == "dict" and "max_length" not in members):
            members["fail_fast"] = True
        for name, inner in members.items():
            if name not in _DATA:
                stop_at_first(inner)
    elif isinstance(schema, list | tuple):
        for inner in cast("Sequence[Any]", schema):
            stop_at_first(inner)


# Bodies that should be right: one pass, which ends at the first fault.


def read_text(kind: type[ModelT], text: bytes) -> ModelT | None:
    """The contract in a body of JSON, as strictly as servers read it; None where there is any fault in it."""
    try:
        found = _reader(kind).validate_json(text, strict=True, by_alias=True, by_name=False)
    except (ValidationError, _UnknownMemberError):
        return None
    return cast("ModelT", found)


class _UnknownMemberError(Exception):
    """Ends a validation where it stands, which an error of Pydantic's would not."""


def _refuse_member(_: Any) -> Any:
    raise _UnknownMemberError


def _without_extra(model: Any) -> Any:
    """The model as one that forbids unknown members; it was read as one that allows them, and has none."""
    object.__setattr__(model, "__pydantic_extra__", None)
    return model


@cache
def _reader(kind: type[Model]) -> SchemaValidator:
    return SchemaValidator(_hasty(kind.__pydantic_core_schema__))


def _hasty(schema: Any) -> Any:
    """The core schema with mappings that stop at the first fault, and objects at the first unknown member."""
    if isinstance(schema, list | tuple):
        items = [_hasty(item) for item in cast("Sequence[Any]", schema)]
        return items if isinstance(schema, list) else tuple(items)
    if not isinstance(schema, dict):
        return schema
    members = cast("dict[str, Any]", schema)
    out = {name: inner if name in _DATA else _hasty(inner) for name, inner in members.items()}
    if out.get("type") == "dict":
        out["fail_fast"] = True
    if out.get("type") != "model" or not _is_closed(out):
        return out
    fields, ref = _fields_in(out), out.pop("ref", None)
    fields["extra_behavior"] = "allow"
    fields["extras_schema"] = core_schema.no_info_plain_validator_function(_refuse_member)
    model = cast("core_schema.CoreSchema", out)
    return core_schema.no_info_after_validator_function(_without_extra, model, ref=ref)


def _is_closed(model: Mapping[str, Any]) -> bool:
    return bool(model.get("config", {}).get("extra_fields_behavior") == "forbid")


def _fields_in(model: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a model's fields, within its own validators."""
    schema = model["schema"]
    while schema["type"] != "model-fields":
        schema = schema["schema"]
    return cast("dict[str, Any]", schema)


# Bodies that have faults.


def trimmed(kind: type[Model], value: Any) -> Any:
    """A body without the members of its objects that are too many: the first of them are faults enough."""
    trim = _trim_of(kind)
    return value if trim is None else trim(value)


@cache
def _trim_of(kind: type[Model]) -> Trim | None:
    return _compile(kind.__pydantic_core_schema__, {})


def _compile(schema: Any, definitions: Mapping[str, Any]) -> Trim | None:
    """What trims the values of a core schema; None where nothing in them can be too much."""
    match schema["type"]:
        case "definitions":
            known = {found["ref"]: found for found in schema["definitions"]}
            return _compile(schema["schema"], known)
        case "definition-ref":
            return _compile(definitions[schema["schema_ref"]], definitions)
        case "model":
            return _of_model(schema, definitions)
        case "dict":
            return _of_mapping(schema.get("max_length"), _within(schema, "values_schema", definitions))
        case "list":
            return _of_list(_within(schema, "items_schema", definitions))
        case "union":
            # A choice may be a pair of its schema and its label.
            choices = cast("Sequence[Any]", schema["choices"])
            trims = [_compile(c[0] if isinstance(c, tuple) else c, definitions) for c in choices]
            return _in_turn([trim for trim in trims if trim is not None])
        case _:
            return _within(schema, "schema", definitions)


def _within(schema: Any, name: str, definitions: Mapping[str, Any]) -> Trim | None:
    return _compile(schema[name], definitions) if name in schema else None


def _in_turn(trims: Sequence[Trim]) -> Trim | None:
    if len(trims) < 2:
        return trims[0] if trims else None

    def trim(value: Any) -> Any:
        for one in trims:
            value = one(value)
        return value

    return trim


def _is_object(value: Any) -> TypeGuard[dict[Any, Any]]:
    return isinstance(value, dict)


def _is_list(value: Any) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _of_model(model: Mapping[str, Any], definitions: Mapping[str, Any]) -> Trim | None:
    closed = _is_closed(model)
    known: set[str] = set()
    trims: dict[str, Trim] = {}
    for name, field in _fields_in(model)["fields"].items():
        names = {name, field.get("validation_alias", name)}
        known |= names
        if (inner := _compile(field["schema"], definitions)) is not None:
            trims |= dict.fromkeys(names, inner)
    if not (closed or trims):
        return None

    def trim(value: Any) -> Any:
        if not _is_object(value):
            return value
        members = value
        if closed and len(members) > len(known) + _UNKNOWN:
            unknown = islice((name for name in members if name not in known), _UNKNOWN)
            members = {name: members[name] for name in (*(known & members.keys()), *unknown)}
        for name, inner in trims.items():
            if name in members and (kept := inner(given := members[name])) is not given:
                members = {**members, name: kept}
        return members

    return trim


def _of_mapping(most: int | None, inner: Trim | None) -> Trim | None:
    if most is None and inner is None:
        return None

    def trim(value: Any) -> Any:
        if not _is_object(value):
            return value
        members = value
        if most is not None and len(members) > most:
            members = dict(islice(members.items(), most + 1))
        return members if inner is None else {name: inner(item) for name, item in members.items()}

    return trim


def _of_list(inner: Trim | None) -> Trim | None:
    if inner is None:
        return None

    def trim(value: Any) -> Any:
        return list(map(inner, value)) if _is_list(value) else value

    return trim
