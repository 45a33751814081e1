"""Tells whose a value is by the names of its classes, which needs no import."""

from __future__ import annotations

from typing import Any


def comes_from(value: Any, library: str, *names: str) -> bool:
    """Whether the value's class, or one it derives from, is `library`'s class of one of these names."""
    return any(
        base.__name__ in names and base.__module__.partition(".")[0] == library
        for base in type(value).__mro__
    )
