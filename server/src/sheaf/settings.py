"""Files of settings in YAML or JSON, whose faults are told with their place in the file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from pydantic import BaseModel, ValidationError

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
        raise ValueError(f"{path}: {error}") from None
    if unknown := [key for key in _keys(content) if key not in _MEMBERS]:
        raise ValueError(f"{path}: {unknown[0]}: unknown; there may be {', '.join(_MEMBERS)}")
    return content


def _keys(content: Any) -> list[str]:
    return list(cast("dict[str, Any]", content)) if isinstance(content, dict) else []


def validated(kind: type[SettingsT], content: Any, place: str) -> SettingsT:
    """Settings of that kind; raises `ValueError` with a line for each fault: its place and what it is.

    What was given is not repeated: it may be a secret.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        faults = error.errors(include_input=False, include_url=False)
        lines = [f"{place}{_path(fault['loc'])}: {fault['msg']}" for fault in faults]
        raise ValueError("\n".join(lines)) from None


def _path(loc: Sequence[str | int]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
