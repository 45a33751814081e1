"""The decoders that this package works without: the error for one that is not installed."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def needed(what: str) -> Generator[None]:
    """Imports that `what` needs; a `ModuleNotFoundError` of theirs names the extra that brings them."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = {"PIL": "pillow"}.get(str(error.name), error.name)
        text = f"{what} needs {package}, of the extra media of sheaf-client: pip install {package}"
        raise ModuleNotFoundError(text, name=error.name) from error
