"""Text of a server as an error may show it: not endless, and nothing in it steers a terminal or a log."""

from __future__ import annotations

import unicodedata

#: Longest text that is shown of what a server says, in characters.
MAX_SHOWN = 2000
#: Controls, format characters (some turn the direction of text), lone surrogates, line separators.
_STEERING = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def printable(text: str, limit: int = MAX_SHOWN) -> str:
    """The text with such characters as escapes, `\\x1b`, cut where it is longer than `limit`."""
    cut = f"… ({len(text)} characters)" if len(text) > limit else ""
    shown = text[:limit]
    if not shown.isprintable():
        shown = "".join(map(_escaped, shown))
    return shown + cut


def _escaped(character: str) -> str:
    if unicodedata.category(character) not in _STEERING:
        return character
    return character.encode("unicode_escape").decode("ascii")


def writable(text: str) -> str:
    """The text with halves of characters, which no document holds, as escapes; names of files have them."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
