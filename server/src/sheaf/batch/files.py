"""Finds, cuts and reads a job's files, here or in an object store, without ever holding one whole."""

from __future__ import annotations

import codecs
import fnmatch
import hashlib
import importlib
import io
import posixpath
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sheaf.batch.spec import JsonlSource
from sheaf.extras import needs

#: pyarrow has no annotations, so it is used without types.
with needs("a batch job", "batch"):
    fs: Any = importlib.import_module("pyarrow.fs")

#: Bytes read at once.
CHUNK = 2**20
#: Begins the name of a file that is still being written.
UNFINISHED = ".unfinished-"
_COMPRESSED = (".bz2", ".gz", ".lz4", ".xz", ".zip", ".zst")


class SourceChangedError(ValueError):
    """A source file is not what it was when the job began."""


@dataclass(frozen=True)
class Part:
    """A run of rows of one source file, and the number of the file that their answers go to.

    `digest` is that of the run's bytes.
    """

    number: int
    path: str
    offset: int
    length: int
    first_row: int
    rows: int
    digest: str

    @property
    def name(self) -> str:
        """Name of the part file."""
        return f"part-{self.number:06d}.jsonl"


def resolve(path: str) -> tuple[Any, str]:
    """The filesystem of a path or URI, and the path in it."""
    if "://" in path:
        filesystem, at = fs.FileSystem.from_uri(path)
        return filesystem, at
    return fs.LocalFileSystem(), Path(path).expanduser().absolute().as_posix()


def find(source: JsonlSource) -> list[str]:
    """The files of a source in order; raises `FileNotFoundError` for a path or pattern without one."""
    given = [source.path] if isinstance(source.path, str) else source.path
    return [found for path in given for found in _matches(path)]


def _matches(path: str) -> list[str]:
    folder, name = posixpath.split(path)
    filesystem, at = resolve(folder or ".")
    if any(sign in name for sign in "*?["):
        infos = filesystem.get_file_info(fs.FileSelector(at, allow_not_found=True))
        names = (info.base_name for info in infos if info.type == fs.FileType.File)
        found = sorted(fnmatch.filter(names, name))
    else:
        info = filesystem.get_file_info(posixpath.join(at, name))
        found = [name] if info.type == fs.FileType.File else []
    if not found:
        raise FileNotFoundError(f"no file at {path}")
    if packed := [name for name in found if name.endswith(_COMPRESSED)]:
        raise ValueError(f"{packed[0]} is compressed, and cannot be read from the middle: unpack it first")
    return [posixpath.join(folder, name) for name in found]


def rows(stream: Any, limit: int, seen: Callable[[bytes], object]) -> Iterator[tuple[int, bytes | None]]:
    """The rows of a stream that are not blank, each with its length in bytes and that of blanks before it.

    A row longer than `limit` bytes is None. Only a line feed ends a row: JSON text may hold any other
    line separator. `seen` is called with all bytes up to a row's end before the row is given.
    """
    length = 0
    while line := stream.readline(limit + 1):
        seen(line)
        # Editors of Windows begin files with a mark, and files are joined to others.
        row: bytes | None = line.removeprefix(codecs.BOM_UTF8)
        length += len(line)
        while not line.endswith(b"\n") and (line := stream.readline(CHUNK)):
            seen(line)
            length += len(line)
            row = None
        if row is None or row.strip():
            yield length, row
            length = 0


def plan(paths: list[str], rows_per_file: int, limit: int, digest: Any) -> Iterator[Part]:
    """Cut the files into parts, in one pass over them that feeds `digest` with all that is read."""
    of_part = until_here = _digest()

    def seen(data: bytes) -> None:
        digest.update(data)
        of_part.update(data)

    number = row = 0
    for path in paths:
        filesystem, at = resolve(path)
        offset = length = count = 0
        with filesystem.open_input_stream(at, compression=None) as raw:
            for size, _ in rows(io.BufferedReader(_Span(raw, sys.maxsize), CHUNK), limit, seen):
                length, count = length + size, count + 1
                until_here = of_part.copy()  # blank lines behind the last row are no part of it
                if count == rows_per_file:
                    yield Part(number, path, offset, length, row, count, until_here.hexdigest())
                    number, row, offset, length, count = number + 1, row + count, offset + length, 0, 0
                    of_part = _digest()
        if count:
            yield Part(number, path, offset, length, row, count, until_here.hexdigest())
            number, row = number + 1, row + count
        of_part = _digest()


def read(part: Part, limit: int) -> Iterator[tuple[int, bytes | None]]:
    """The rows of a part with their indices; None for one that is too long.

    Raises:
        SourceChangedError: At the end, where these were not the rows that the job was cut into.
    """
    filesystem, at = resolve(part.path)
    digest = _digest()
    with filesystem.open_input_file(at) as file:
        file.seek(part.offset)
        stream = io.BufferedReader(_Span(file, part.length), CHUNK)
        for index, (_, row) in enumerate(rows(stream, limit, digest.update)):
            yield part.first_row + index, row
    if digest.hexdigest() != part.digest:
        raise SourceChangedError(
            f"{part.path} has changed since the job began: run the job again when nobody writes to it"
        )


def check(part: Part, limit: int) -> None:
    """Raise `SourceChangedError` where a part is not what it was."""
    for _ in read(part, limit):
        pass


def is_whole(part: Part, folder: str) -> bool:
    """Whether the part's file in a folder ends as it should; it may have been cut short since."""
    filesystem, at = resolve(posixpath.join(folder, part.name))
    tail = b""
    with filesystem.open_input_file(at) as file:
        left: int = file.size()
        while left and b"\n" not in tail[:-1]:
            step = min(CHUNK, left)
            left -= step
            file.seek(left)
            tail = file.read(step) + tail
    last = tail[:-1].rpartition(b"\n")[2]
    return tail.endswith(b"\n") and last.startswith(b'{"index":%d,' % (part.first_row + part.rows - 1))


def _digest() -> Any:
    return hashlib.blake2b(digest_size=16)


class _Span(io.RawIOBase):
    """The next `length` bytes of a file."""

    def __init__(self, raw: Any, length: int) -> None:
        self._raw, self._left = raw, length

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._raw.read(min(len(buffer), self._left))
        self._left -= len(data)
        buffer[: len(data)] = data
        return len(data)
