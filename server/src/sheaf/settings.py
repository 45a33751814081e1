"""Files of settings in YAML or JSON, whose faults are told with their place in the file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import yaml
from pydantic import BaseModel, ValidationError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

SettingsT = TypeVar("SettingsT", bound=BaseModel)
#: What the file of a server may have at its top.
_MEMBERS = ("models", "access", "limits")


def read_yaml(path: Path) -> Any:
    """The content of a server's file: a list, or a mapping of `models`, `access` and `limits`.

    Raises `ValueError` with the line where it is no YAML, and for other members.
    """
    try:
        content: Any = yaml.safe_load(path.read_bytes())
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: {_told_in_a_line(error)}") from None
    if unknown := [key for key in _keys(content) if key not in _MEMBERS]:
        raise ValueError(f"{path}: {unknown[0]}: unknown; there may be {', '.join(_MEMBERS)}")
    return content


def _told_in_a_line(error: yaml.YAMLError) -> str:
    """Why a file is no YAML, and where; what stands there is not repeated."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return f"no YAML: {str(error).splitlines()[0]}"
    mark = error.problem_mark
    return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"


def _keys(content: Any) -> list[str]:
    return list(cast("dict[str, Any]", content)) if isinstance(content, dict) else []


def validated(kind: type[SettingsT], content: Any, place: str = "") -> SettingsT:
    """Settings of that kind; raises `ValueError` with a line for each fault: its place and what it is.

    What was given is not repeated: it may be a secret.

    Args:
        kind: The class of the settings.
        content: Its members, from a file or from arguments.
        place: Where they stand: a file (`models.yaml`), with the member in it (`models.yaml: models[0]`), or
            none for arguments, whose names say it.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        faults = error.errors(include_input=False, include_url=False)
        lines = [_line(place, _path(fault["loc"]), _text(kind, fault)) for fault in faults]
        raise ValueError("\n".join(lines)) from None


def _line(place: str, path: str, text: str) -> str:
    """One fault: members of a whole file come after its name and a colon."""
    if place and path and ": " not in place and not place.endswith("]"):
        place, path = f"{place}: ", path.removeprefix(".")
    whole = f"{place}{path}" if place else path.removeprefix(".")
    return f"{whole}: {text}" if whole else text


def _path(loc: Sequence[str | int]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)


def _text(kind: type[BaseModel], fault: ErrorDetails) -> str:
    """What is wrong, in the words of who wrote the file and not of the library that checks it."""
    what, loc = fault["type"], fault["loc"]
    if what == "missing":
        return "missing"
    if what == "extra_forbidden":
        names = list(kind.model_fields) if len(loc) == 1 else []
        return f"unknown{meant(str(loc[-1]), names)}"
    if what in {"model_type", "model_attributes_type", "dict_type"}:
        return "expected a mapping"
    if what == "string_pattern_mismatch":
        return f"expected text of the form {fault['ctx']['pattern']}" if "ctx" in fault else fault["msg"]
    return fault["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")


def meant(name: str, known: Iterable[str]) -> str:
    """The end of a text about an unknown name: the one that is near to it, if any."""
    near = get_close_matches(name, list(known), 1)
    return f"; did you mean {near[0]!r}?" if near else ""
