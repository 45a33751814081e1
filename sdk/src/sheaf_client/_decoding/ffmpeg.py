"""Opens files for FFmpeg (PyAV) such that a file can do nothing but be decoded, and tells its faults."""

from __future__ import annotations

import io
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sheaf_client._decoding.libraries import needed
from sheaf_client._formats import BrokenFileError

if TYPE_CHECKING:
    from av.container import InputContainer


@contextmanager
def opened(data: bytes, what: str, containers: str, needer: str) -> Generator[InputContainer]:
    """The file, open to be decoded within; FFmpeg's errors there are `BrokenFileError`s.

    Args:
        what: What the file is, for its faults: `sound`, `video`.
        containers: Those that are looked for, by FFmpeg's names; it knows hundreds, some of which are lists
            of other files and addresses, to be opened.
        needer: What PyAV is needed for, where it is missing.
    """
    with needed(needer):
        import av
        from av.error import FFmpegError

    options = {"format_whitelist": containers, "protocol_whitelist": "none"}
    try:
        with av.open(io.BytesIO(data), "r", options=options, metadata_errors="replace") as container:
            yield container
    except BrokenFileError:
        raise
    except (FFmpegError, ValueError) as error:
        reason = str(getattr(error, "strerror", None) or error).rstrip(".")
        raise BrokenFileError(f"The {what} cannot be read: {reason}.") from None
