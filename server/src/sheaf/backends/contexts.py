"""State that a backend keeps between requests: a fitted table, an encoded image, the history of a series.

Contexts are known by the hash of their content or by an identifier that a caller was given; the least
recently used go when memory is short. What was dropped is made again, so a cached answer equals another.
They belong to whose request made them (`owner_of`), and nobody can compute an identifier from content alone.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Hashable
from typing import Any, TypeVar, cast

import msgspec

from sheaf.lru import SizedLRU

T = TypeVar("T")

#: What processes that are to give equal content one identifier have in common; text of any length.
VARIABLE = "SHEAF_CONTEXT_SECRET"
_of_this_process = secrets.token_bytes(32)
#: Stands for no context, since None may be one.
_NONE = object()


def context_secret() -> bytes:
    """What identifiers are made with: of the environment where it says so, else this process's own."""
    given = os.environ.get(VARIABLE)
    return hashlib.sha256(given.encode("utf-8", "surrogateescape")).digest() if given else _of_this_process


def _array(part: Any) -> Any:
    """What stands for an array, which the encoder does not know; everything else is refused by it."""
    if not (hasattr(part, "tobytes") and hasattr(part, "dtype")):
        raise TypeError(f"a {type(part).__name__} has no content to tell it by")
    if part.dtype.hasobject:
        raise TypeError("an array of objects has no content to tell it by")
    return ["array", str(part.dtype), list(part.shape), part.tobytes()]


_encoder = msgspec.msgpack.Encoder(order="deterministic", enc_hook=_array)


def content_key(*parts: Any, secret: bytes = b"") -> str:
    """An identifier of content: equal for equal parts, whatever made them.

    Args:
        secret: Up to 64 bytes without which the identifier cannot be computed; with none anybody can.
        parts: Text, bytes, numbers, None, lists, mappings and arrays. An array counts with its dtype and
            shape; two NaN of the same bits are equal.

    Raises:
        TypeError: A part is none of these, such as an array of Python objects.
    """
    return hashlib.blake2b(_encoder.encode(parts), digest_size=16, key=secret).hexdigest()


class ContextCache(SizedLRU[Hashable, Any]):
    """The most recently used contexts of one backend, within a bound in bytes.

    Args:
        max_bytes: Most bytes that all contexts hold together, as their makers count them.
    """

    def __init__(self, max_bytes: float = 2**30) -> None:
        super().__init__(max_bytes)
        #: For `content_key`; a spec gives all its replicas one.
        self.secret = context_secret()

    def get_or_make(self, key: Hashable, make: Callable[[], T], size_of: Callable[[T], int]) -> T:
        """The context of that key, made and kept where it is not there."""
        found = self.get(key, _NONE)
        if found is not _NONE:
            return cast("T", found)
        made = make()
        self.put(key, made, size_of(made))
        return made
