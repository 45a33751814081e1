"""Turns the fault of a file into the refusal of the request that carries it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from sheaf.backends._shared.refusals import refuse
from sheaf_client.protocol.media import BrokenFileError


@contextmanager
def file_at(path: str) -> Generator[None]:
    """Decode the file at `path` of the request, a JSON Pointer: its faults are `InvalidRequestError`s."""
    try:
        yield
    except BrokenFileError as error:
        raise refuse(path, str(error), error.code) from None
