"""The LoRA adapters of one pipeline: loaded when first wanted, kept within a bound, added to rows.

The pipeline's networks never hold an adapter: a forward pass gets the factors of its rows while it runs, so
no request can see another's, and dropping an adapter is letting go of its tensors.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

from sheaf.backends._families.diffusers.adapter_files import (
    Adapter,
    AdapterError,
    find_file,
    lora_parts,
    read_adapter,
)
from sheaf.backends._families.diffusers.row_lora import Layers, RowPass
from sheaf.lora import ActiveAdapters, LoRAConfig
from sheaf.lru import SizedLRU
from sheaf_client.errors import BackendError, OverloadedError

log = logging.getLogger("sheaf.lora")


class Adapters:
    """The adapters that one pipeline's requests may name; used on the thread of its model.

    Args:
        pipe: A diffusers pipeline with LoRA loaders, which need PEFT; its own networks in their places.
        config: What the deployment declares. Its default is loaded at once.
        retry_seconds: How long an adapter that could not be loaded is refused before its file is read again.

    Raises:
        AdapterError: The default cannot be loaded.
    """

    def __init__(self, pipe: Any, config: LoRAConfig, *, retry_seconds: float = 30.0) -> None:
        self._pipe = pipe
        self._declared = config
        self._retry_seconds = retry_seconds
        self._kept: SizedLRU[str, Adapter] = SizedLRU(config.max_bytes or math.inf)
        self._users: Counter[str] = Counter()
        self._failed: dict[str, tuple[float, AdapterError]] = {}
        self._latest: tuple[tuple[ActiveAdapters, ...], RowPass] | None = None
        # Requests that are cancelled let go on threads of their own.
        self._lock = threading.RLock()
        if config.default is not None:
            self._load(config.default)

    @property
    def loaded(self) -> tuple[str, ...]:
        """Names of the adapters in memory, the least recently used first."""
        return tuple(self._kept)

    @property
    def size(self) -> int:
        """Bytes of the adapters in memory."""
        return self._kept.size

    @contextmanager
    def held(self, active: ActiveAdapters) -> Generator[None]:
        """Have these adapters in memory while it is open, loading those that are not; for one request's run.

        Raises:
            BackendError: One of them cannot be loaded; the log says why.
            OverloadedError: Those that are in use leave no room for it within `max_bytes`.
        """
        names = [name for name, _ in active]
        with self._lock:
            self._users.update(names)
        try:
            for name in names:
                self._want(name)
            yield
        finally:
            with self._lock:
                self._users.subtract(names)

    def rows(self, active: Sequence[ActiveAdapters]) -> AbstractContextManager[None]:
        """Compute each row of one forward pass of the denoiser with its own adapters, all of them held.

        Args:
            active: The adapters of each row, shape (batch,); a request that guidance doubles has two rows.
        """
        if not any(active):
            return nullcontext()
        key = tuple(active)
        if self._latest is None or self._latest[0] != key:  # most batches take many steps together
            self._latest = key, RowPass(active, self._layers_of(0, active))
        return self._latest[1].applied()

    @contextmanager
    def text(self, active: ActiveAdapters) -> Generator[None]:
        """Encode the prompts of one request with its adapters, where they change the text encoders."""
        with ExitStack() as encoders:
            for number in range(1, len(lora_parts(self._pipe))) if active else ():
                added = RowPass([active], self._layers_of(number, [active]), any_size=True)
                encoders.enter_context(added.applied())
            yield

    def _layers_of(self, number: int, rows: Sequence[ActiveAdapters]) -> dict[str, Layers]:
        """By adapter what it changes in one of the pipeline's components; 0 is the denoiser."""
        part = lora_parts(self._pipe)[number]
        return {name: self._kept[name].parts.get(part, {}) for active in rows for name, _ in active}

    def _want(self, name: str) -> None:
        with self._lock:
            if self._kept.get(name) is not None:
                return
            failed_at, failure = self._failed.get(name, (0.0, None))
            if failure is None or time.monotonic() - failed_at >= self._retry_seconds:
                failure = self._try(name)
        if failure is not None:
            raise BackendError(f"The adapter {name!r} cannot be loaded.") from failure

    def _try(self, name: str) -> AdapterError | None:
        self._failed.pop(name, None)
        try:
            self._load(name)
        except AdapterError as error:
            log.error("%s", error)
            self._failed[name] = time.monotonic(), error
            return error
        return None

    def _load(self, name: str) -> None:
        file = find_file(name, self._declared)
        adapter = read_adapter(name, file, self._pipe)
        self._make_room(name, adapter.size)
        for layers in adapter.parts.values():
            for layer, factors in layers.items():
                weight = getattr(layer, "weight", None)
                if weight is not None and weight.device.type != "meta":
                    factors.to(weight.device)
        self._kept.put(name, adapter, adapter.size)
        log.info("loaded the adapter %s from %s, %d bytes", name, file, adapter.size)

    def _make_room(self, name: str, size: int) -> None:
        if size > self._kept.max_bytes:
            raise AdapterError(
                f"adapter {name!r} has {size} bytes, and `max_bytes` is {self._kept.max_bytes}"
            )
        for dropped in self._kept.make_room(size, held=lambda kept: self._users[kept] > 0):
            self._latest = None  # it may hold what was dropped
            log.info("dropped the adapter %s", dropped)
        if not self._kept.fits(size):
            raise OverloadedError(f"The adapters in use leave no room for {name!r}.", retry_after=1)
