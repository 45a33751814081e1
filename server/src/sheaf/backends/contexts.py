"""State that a backend keeps between requests: a fitted table, an encoded image, the history of a series.

Contexts are known by the hash of their content or by an identifier that a caller was given; the least
recently used go when memory is short. What was dropped is made again, so a cached answer equals another.
They belong to whose request made them (`owner_of`), and nobody can compute an identifier from content alone.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import msgspec

T = TypeVar("T")

#: What processes that are to give equal content one identifier have in common; text of any length.
VARIABLE = "SHEAF_CONTEXT_SECRET"
_of_this_process = secrets.token_bytes(32)


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


@dataclass(frozen=True, slots=True)
class _Context:
    value: Any
    size: int


class ContextCache:
    """The most recently used contexts of one backend, within a bound in bytes.

    Args:
        max_bytes: Most bytes that all contexts hold together, as their makers count them.
    """

    def __init__(self, max_bytes: int = 2**30) -> None:
        self.max_bytes = max_bytes
        #: For `content_key`; a spec gives all its replicas one.
        self.secret = context_secret()
        self.size = 0
        self.hits = 0
        self.misses = 0
        self._kept: OrderedDict[Hashable, _Context] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._kept

    def get(self, key: Hashable) -> Any | None:
        """The context of that key, now the most recently used; None where it is not kept."""
        found = self._find(key)
        return None if found is None else found.value

    def peek(self, key: Hashable) -> Any | None:
        """The context of that key, without counting as a use of it; None where it is not kept."""
        with self._lock:
            found = self._kept.get(key)
            return None if found is None else found.value

    def put(self, key: Hashable, value: object, size: int) -> None:
        """Keep a context of `size` bytes; one larger than the bound is not kept."""
        with self._lock:
            self._drop(key)
            if size > self.max_bytes:
                return
            while self._kept and self.size + size > self.max_bytes:
                self._drop(next(iter(self._kept)))
            self._kept[key] = _Context(value, size)
            self.size += size

    def get_or_make(self, key: Hashable, make: Callable[[], T], size_of: Callable[[T], int]) -> T:
        """The context of that key, made and kept where it is not there."""
        found = self._find(key)
        if found is not None:
            return cast("T", found.value)
        made = make()
        self.put(key, made, size_of(made))
        return made

    def clear(self) -> None:
        """Let go of everything."""
        with self._lock:
            self._kept.clear()
            self.size = 0

    def _find(self, key: Hashable) -> _Context | None:
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                self.misses += 1
            else:
                self.hits += 1
                self._kept.move_to_end(key)
            return found

    def _drop(self, key: Hashable) -> None:
        dropped = self._kept.pop(key, None)
        if dropped is not None:
            self.size -= dropped.size
