"""Writes the code samples of each typed operation (Python, TypeScript, curl) from the schema's examples."""

from __future__ import annotations

from codegen.bundle import JSON, Bundle
from codegen.resources import Resource


def add_samples(bundle: Bundle, document: JSON, resources: list[Resource]) -> None:
    """Put `x-codeSamples` on every typed operation of the document."""
