"""Renders the TypeScript client's generated part."""

from __future__ import annotations

from pathlib import Path

from codegen.bundle import JSON, Bundle
from codegen.resources import Resource


def render_typescript(bundle: Bundle, view: JSON, resources: list[Resource], out: Path) -> None:
    """Write types, validators, resources, rules and errors into `out`."""
    out.mkdir(parents=True)
