"""Switches in environment variables, read the same way everywhere."""

from __future__ import annotations

import os

_OFF = frozenset({"", "0", "false", "no", "off"})


def switched_on(name: str) -> bool:
    """Whether the variable says yes: it is there, and not empty, `0`, `false`, `no` or `off`."""
    return os.environ.get(name, "").strip().lower() not in _OFF
