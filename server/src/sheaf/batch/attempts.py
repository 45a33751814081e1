"""How often a part, or a row by itself, was begun by a process that was lost: kept beside the part files.

A row may crash the process of its model, and whoever takes its part next. So a part that was lost thrice is
run row by row, and a row that was lost alone twice is given up; once might be another's fault.
"""

from __future__ import annotations

import json
import posixpath
from contextlib import suppress
from typing import Any, cast

#: Begins the name of a file that counts.
BEGUN = ".begun-"
PART_ATTEMPTS = 3
ROW_ATTEMPTS = 2


class Attempts:
    """The count of one part, or of what else may end a process, from when it is begun until it has ended.

    Attributes:
        begun: how often it was begun, this time included.
    """

    def __init__(self, filesystem: Any, folder: str, name: str) -> None:
        self._filesystem = filesystem
        self._path = posixpath.join(folder, BEGUN + name)
        self.begun, self._row, self._rows = self._read()
        if self._row is not None:
            self._rows[self._row] = self._rows.get(self._row, 0) + 1
        self.begun += 1
        self._row = None
        self._write()

    @property
    def lost(self) -> bool:
        """Whether it was lost as often as it may be."""
        return self.begun > PART_ATTEMPTS

    def lost_row(self, index: int) -> bool:
        """Whether this row was lost as often as it may be, when it was the only one."""
        return self._rows.get(index, 0) >= ROW_ATTEMPTS

    def begin_row(self, index: int) -> None:
        """Say which row is run alone; the one before it has ended."""
        self._row = index
        self._write()

    def take_back(self) -> None:
        """It was not lost: it ended by an error."""
        self.begun -= 1
        self._row = None
        with suppress(OSError):  # that error is to be told, and no other
            self._write()

    def forget(self) -> None:
        """It has ended well."""
        with suppress(FileNotFoundError):
            self._filesystem.delete_file(self._path)

    def _read(self) -> tuple[int, int | None, dict[int, int]]:
        try:
            with self._filesystem.open_input_stream(self._path, compression=None) as file:
                told: Any = json.loads(file.read())
            rows = cast("dict[str, int]", told["rows"])
            return int(told["begun"]), told["row"], {int(row): int(count) for row, count in rows.items()}
        except (FileNotFoundError, LookupError, TypeError, ValueError):
            return 0, None, {}  # not begun yet, or lost while this was written

    def _write(self) -> None:
        told = {"begun": self.begun, "row": self._row, "rows": self._rows}
        with self._filesystem.open_output_stream(self._path, compression=None) as file:
            file.write(json.dumps(told).encode())
