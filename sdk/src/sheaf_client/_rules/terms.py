"""What every rule is written in: its entry in the schema, the fields it reads, the faults it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, LiteralString, TypeAlias

Loc: TypeAlias = tuple[str | int, ...]
#: Code, location and message of one fault.
Finding: TypeAlias = tuple[LiteralString, Loc, str]
#: The fields of a contract by their names in Python.
Fields: TypeAlias = Mapping[str, Any]
#: From the fields, the value that a rule is about and its location to its faults.
Check: TypeAlias = Callable[[Fields, Any, Loc], Sequence[Finding]]
Spec: TypeAlias = Mapping[str, Any]


def python_name(wire: str) -> str:
    """The name of a field in Python, where binary fields are called without the suffix."""
    return wire.removesuffix("_b64")


def listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def width_of(rows: Any) -> int:
    """Columns of a table; 1 for a list of plain values."""
    return len(rows[0]) if rows and isinstance(rows[0], list) else 1
