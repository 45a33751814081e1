"""What was used last, within a bound in bytes: answers, contexts, adapters are kept by it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from math import inf
from typing import Generic, TypeVar, overload

KeyT = TypeVar("KeyT", bound=Hashable)
ValueT = TypeVar("ValueT")
OtherT = TypeVar("OtherT")


class SizedLRU(Generic[KeyT, ValueT]):
    """Values by key; the least recently used make room for others. May be used by several threads.

    Args:
        max_bytes: Most bytes that all values hold together, as those who put them count.
        max_count: Most values.

    Attributes:
        size: Bytes that all values hold together.
        hits: How often `get` found a value.
        misses: How often it did not.
    """

    def __init__(self, max_bytes: float = inf, max_count: float = inf) -> None:
        self.max_bytes = max_bytes
        self.max_count = max_count
        self.size = self.hits = self.misses = 0
        self._kept: OrderedDict[KeyT, tuple[ValueT, int]] = OrderedDict()
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, key: KeyT) -> bool:
        return key in self._kept

    def __iter__(self) -> Iterator[KeyT]:
        """The keys, the least recently used first."""
        return iter(tuple(self._kept))

    def __getitem__(self, key: KeyT) -> ValueT:
        """The value of that key, without counting as a use of it; raises `KeyError` where it is not kept."""
        return self._kept[key][0]

    @overload
    def get(self, key: KeyT, default: None = None) -> ValueT | None: ...
    @overload
    def get(self, key: KeyT, default: OtherT) -> ValueT | OtherT: ...
    def get(self, key: KeyT, default: object = None) -> object:
        """The value of that key, now the most recently used; `default` where it is not kept."""
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                self.misses += 1
                return default
            self.hits += 1
            self._kept.move_to_end(key)
            return found[0]

    def peek(self, key: KeyT) -> ValueT | None:
        """The value of that key, without counting as a use of it; None where it is not kept."""
        with self._lock:
            found = self._kept.get(key)
            return None if found is None else found[0]

    def put(self, key: KeyT, value: ValueT, size: int) -> None:
        """Keep a value of `size` bytes; one larger than the bound is not kept."""
        with self._lock:
            self.drop(key)
            if size <= self.max_bytes:
                self.make_room(size)
                self._kept[key] = value, size
                self.size += size

    def make_room(self, size: int, held: Callable[[KeyT], bool] | None = None) -> list[KeyT]:
        """Let go of the least recently used until one more of `size` bytes fits, or none is left.

        Args:
            held: Which must stay.

        Returns:
            The keys of what went.
        """
        with self._lock:
            dropped: list[KeyT] = []
            for key in () if self.fits(size) else self:
                if held is None or not held(key):
                    self.drop(key)
                    dropped.append(key)
                    if self.fits(size):
                        break
            return dropped

    def fits(self, size: int) -> bool:
        """Whether one more value of `size` bytes is within the bounds."""
        return len(self._kept) < self.max_count and self.size + size <= self.max_bytes

    def drop(self, key: KeyT) -> None:
        """Let go of one, where it is kept."""
        with self._lock:
            dropped = self._kept.pop(key, None)
            if dropped is not None:
                self.size -= dropped[1]

    def clear(self) -> None:
        """Let go of everything."""
        with self._lock:
            self._kept.clear()
            self.size = 0
