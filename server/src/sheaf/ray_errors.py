"""What Ray tells of an error in another process, brought down to what the error itself says."""

from __future__ import annotations

import re

#: Most characters of a cause that are passed on.
MAX_CAUSE = 600
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
#: A frame of a traceback: its place, and the lines of code below it.
_FRAME = re.compile(r'^ *File ".*", line \d+, in .*$(?:\n {4,}.*$)*', re.MULTILINE)


#: Between the error that was raised and one that was raised from it.
_RAISED_FROM = "The above exception was the direct cause of the following exception:"
#: Ray's own, which it raises from those of our code: its type, at the beginning of a line.
_OF_RAY = re.compile(r"^ray\.exceptions\.", re.MULTILINE)


def cause_of(text: str) -> str:
    """Type and text of the error that a traceback ends with, on one line; of other text its first line.

    Ray wraps the traceback of the process where the error was raised in one or more of its own, and raises
    errors of its own from it.
    """
    chain = _COLOUR.sub("", text).split(_RAISED_FROM)
    while len(chain) > 1 and _OF_RAY.search(chain[-1]):
        del chain[-1]
    text = chain[-1].strip()
    frames = list(_FRAME.finditer(text))
    told = text[frames[-1].end() :] if frames else text.partition("\n")[0]
    cause = " ".join(told.split())
    return cause if len(cause) <= MAX_CAUSE else f"{cause[:MAX_CAUSE]} …"
