"""Fits values to the fields of a contract, and takes whole objects apart into fields.

What a field wants is read from its contract, so that no model type is named here.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, TypeAlias, Union, cast, get_args, get_origin

from sheaf_client._base import Model
from sheaf_client._inputs import grids, sequences, structures, tables
from sheaf_client._inputs.arrays import dense, plain
from sheaf_client._inputs.frames import columns_of, is_frame, named_columns, repeated
from sheaf_client._inputs.media import encoded, is_media
from sheaf_client.errors import InvalidRequestError

#: Fields that a keyword may replace beside the whole object that gives them.
REPLACEABLE = structures.SIMULATED

#: What reads the fields of a whole object off it, but for some of them that keywords replace.
_Reader: TypeAlias = Callable[[Any, Collection[str]], dict[str, Any] | None]


def _whole(read: Callable[[Any], dict[str, Any] | None]) -> _Reader:
    return lambda value, _: read(value)


#: The fields that a whole object may give, and what reads them off it; the first that a contract has all of.
_WHOLE: tuple[tuple[frozenset[str], _Reader], ...] = (
    (structures.FIELDS | structures.SIMULATED, structures.simulated_fields),
    (structures.FIELDS | structures.RELAXED, structures.relaxed_fields),
    (structures.FIELDS, _whole(structures.structure_fields)),
    (grids.FIELDS, _whole(grids.grid_fields)),
    (frozenset({"sequences"}), _whole(sequences.sequence_fields)),
    (frozenset({"chains"}), _whole(sequences.chain_fields)),
    (frozenset({"smiles"}), _whole(sequences.molecule_fields)),
)


@dataclass(frozen=True)
class _Field:
    """What a field wants (`media`, `tensor`, `mapping`, `texts`, else `plain`) and its name on the wire."""

    wire: str
    wants: str
    #: `list` or `dict` where the field holds many, `type` where it holds one.
    container: type = type
    #: The contract of its items, where they are contracts.
    part: type[Model] | None = None


@cache
def _fields_of(contract: type[Model]) -> Mapping[str, _Field]:
    """The fields of a contract under their names in Python and on the wire."""
    found: dict[str, _Field] = {}
    for name, info in contract.model_fields.items():
        binary = contract.__binary__.get(name)
        if binary is None:
            found[name] = _Field(name, _wanted(info.annotation), part=_part(info.annotation))
        else:
            many = {get_origin(branch) for branch in _branches(info.annotation)} & {list, dict}
            wants = "tensor" if binary.dtype else "media"
            field = _Field(binary.wire, wants, many.pop() if many else type)
            found[name] = found[binary.wire] = field
    return found


def _wanted(annotation: Any) -> str:
    branches = [_bare(branch) for branch in _branches(annotation)]
    origins = {get_origin(branch) or branch for branch in branches}
    if dict in origins:
        return "mapping"
    items = [get_args(branch) for branch in branches if get_origin(branch) is list]
    if items and all(_bare(item) is str for args in items for item in args):
        return "texts"
    return "plain"


def _part(annotation: Any) -> type[Model] | None:
    items = [i for b in _branches(annotation) if get_origin(_bare(b)) is list for i in get_args(_bare(b))]
    parts = [item for item in items if isinstance(item, type) and issubclass(item, Model)]
    return parts[0] if parts else None


def _branches(annotation: Any) -> Sequence[Any]:
    bare = _bare(annotation)
    return get_args(bare) if get_origin(bare) in (types.UnionType, Union) else (bare,)


def _bare(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def as_body(contract: type[Model], given: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords as a body: binary fields under their wire names, the rest as plain values.

    Raises:
        TypeError: One field is given under both of its names.
        InvalidRequestError: Frames that belong together have other columns.
    """
    known = _fields_of(contract)
    if known.keys() >= tables.FIELDS:
        given = tables.table_fields(given)
    body: dict[str, Any] = {}
    for name, value in given.items():
        field = known.get(name)
        if field is None:
            body[name] = plain(value)
            continue
        if field.wire != name and field.wire in given:
            raise TypeError(f"{name} and {field.wire} are one field; give one")
        body[field.wire] = None if value is None else _fit(field, value)
    return body


def _fit(field: _Field, value: Any) -> Any:
    if field.wants in ("tensor", "media"):
        fit = dense if field.wants == "tensor" else encoded
        return _each(field.container, fit, value)
    if field.part is not None and isinstance(value, list | tuple):
        parts = enumerate(cast("Sequence[Any]", value))
        return [_fit_part(field.part, item, f"/{field.wire}/{i}") for i, item in parts]
    if field.wants == "mapping" and is_frame(value):
        return _columns(field, value)
    if field.wants == "texts":
        texts = sequences.sequence_fields(value) or sequences.molecule_fields(value)
        if texts is not None:
            return next(iter(texts.values()))
    return plain(value)


def _columns(field: _Field, frame: Any) -> dict[str, list[Any]]:
    """The columns of a frame by name; truth values are 0 and 1."""
    if twice := repeated(name for name, _ in named_columns(frame)):
        from sheaf_client.contracts.problem import Fault

        message = f"Must have each column once; {', '.join(map(repr, twice))} is there twice."
        fault = Fault(code="unique", path=f"/{field.wire}", message=message)
        raise InvalidRequestError("The request is invalid.", errors=[fault])
    columns = columns_of(frame).items()
    return {name: [int(v) if isinstance(v, bool) else v for v in values] for name, values in columns}


def _fit_part(contract: type[Model], value: Any, at: str) -> Any:
    """One item of a list of contracts: its fields as a mapping, or an object that stands for all of them."""
    if isinstance(value, Mapping):
        return as_body(contract, cast("Mapping[str, Any]", value))
    try:
        fields = None if isinstance(value, Model) else _taken_apart(contract, value)
    except InvalidRequestError as error:
        faults = [fault.model_copy(update={"path": at + fault.path}) for fault in error.errors]
        raise InvalidRequestError(error.detail, errors=faults) from None
    return plain(value) if fields is None else as_body(contract, fields)


def _each(container: type, fit: Callable[[Any], Any], value: Any) -> Any:
    if container is list and not isinstance(value, str | bytes | Mapping) and hasattr(value, "__iter__"):
        return [fit(item) for item in value]
    if container is dict and isinstance(value, Mapping):
        return {key: fit(item) for key, item in cast("Mapping[str, Any]", value).items()}
    return fit(value) if container is type else cast("Any", value)


def expand(contract: type[Model], value: Any, replaced: Collection[str] = ()) -> dict[str, Any]:
    """The fields of a contract that a whole object gives: atoms, a dataset, sequences, molecules, a file.

    What keywords have `replaced` need not be readable.

    Raises:
        TypeError: The object stands for nothing that this contract has.
    """
    if (fields := _taken_apart(contract, value, replaced)) is not None:
        return fields
    known = _fields_of(contract)
    media = [
        n for n, info in contract.model_fields.items() if known[n].wants == "media" and info.is_required()
    ]
    if len(media) == 1 and known[media[0]].container is type and is_media(value):
        return {media[0]: value}
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    raise TypeError(f"a {name} cannot stand for a {contract.__name__}; give its fields as keywords")


def _taken_apart(contract: type[Model], value: Any, replaced: Collection[str] = ()) -> dict[str, Any] | None:
    """The fields that the contract has and the object gives; None where it gives none."""
    known = _fields_of(contract).keys()
    read = (read(value, replaced) for names, read in _WHOLE if names <= known)
    return next((fields for fields in read if fields is not None), None)
