"""Answers kept by what was asked, within a bound in bytes.

Answers are kept as packed bytes: the bound is exact, and no caller can change what another gets.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Collection
from typing import Any

import msgspec

from sheaf.cache import CacheConfig
from sheaf.lru import SizedLRU
from sheaf_client.contracts.base import BaseRequest, BaseResponse, Usage
from sheaf_client.protocol import WIRE, unpack, validate_unpacked

#: Bytes that an entry costs besides what it holds.
_OVERHEAD = 256

_encoder = msgspec.msgpack.Encoder(order="deterministic")


def request_key(request: BaseRequest, without: Collection[str] = ()) -> bytes:
    """A hash of all that a request asks for, but for its identifier and the fields of these names.

    Both names of a field that is called otherwise on the wire count.
    """
    left_out = {"request_id", *without}
    if without:
        left_out |= {name for name, field in type(request).__binary__.items() if field.wire in without}
    asked = request.model_dump(context={WIRE: True}, exclude=left_out)
    return hashlib.blake2b(_encoder.encode((type(request).__name__, asked)), digest_size=16).digest()


class AnswerCache:
    """The most recently used answers of one model, within bounds in bytes and in answers."""

    def __init__(self, config: CacheConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._clock = clock
        self._kept: SizedLRU[bytes, tuple[type[BaseResponse], bytes, float]] = SizedLRU(
            config.max_bytes, math.inf if config.max_size is None else config.max_size
        )

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def size(self) -> int:
        """Bytes that all answers take."""
        return self._kept.size

    def key(self, request: BaseRequest, tenant: str = "") -> bytes:
        """What requests with one answer have in common: those of one tenant, unless answers are shared."""
        key = request_key(request, self._config.exclude_fields)
        return key if self._config.shared else key + tenant.encode()

    def get(self, key: bytes, request: BaseRequest) -> BaseResponse | None:
        """The answer to an equal request, under this one's identifier; None where there is none."""
        found = self._kept.get(key)
        if found is None:
            return None
        if self._config.ttl_s is not None and self._clock() - found[2] >= self._config.ttl_s:
            self._kept.drop(key)
            return None
        return readdress(found[0], found[1], request)

    def put(self, key: bytes, kind: type[BaseResponse], packed: bytes) -> None:
        """Keep an answer; those used least recently make room for it."""
        self._kept.put(key, (kind, packed, self._clock()), len(packed) + _OVERHEAD)


def readdress(kind: type[BaseResponse], packed: bytes, request: BaseRequest) -> BaseResponse:
    """A packed answer as the answer to another, equal request."""
    content: dict[str, Any] = unpack(packed)
    content["request_id"] = str(request.request_id)
    answer = validate_unpacked(kind, content, strict=False)
    answer.metadata.usage = Usage(compute_seconds=0.0, queue_seconds=0.0, batch_size=1, cache_hit=True)
    return answer
