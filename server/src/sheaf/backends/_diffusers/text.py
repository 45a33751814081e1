"""Encodes a request's prompts with its adapters, and keeps what the libraries log to the request.

The library logs the end of a prompt that it cuts off: that belongs to the caller, and into no log.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from sheaf.backends._diffusers.seams import AdapterSeam
from sheaf.lora import ActiveAdapters


class _Overheard(logging.Filter):
    """Keeps what one thread logs to itself."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []
        self._thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.thread != self._thread:
            return True
        if record.levelno >= logging.WARNING:
            self.messages.append(record.getMessage())
        return False


@contextmanager
def overheard(*names: str) -> Generator[list[str]]:
    """What this thread's code warns of by the loggers of these names, which it does not reach meanwhile."""
    kept, loggers = _Overheard(), [logging.getLogger(name) for name in names]
    for logger in loggers:
        logger.addFilter(kept)
    try:
        yield kept.messages
    finally:
        for logger in loggers:
            logger.removeFilter(kept)


#: What the libraries' models and tokenizers log while they run; it is about themselves.
CHATTER = ("diffusers.models.modeling_utils", "transformers.tokenization_utils_base")


def encoding(
    pipeline: Any, adapters: AdapterSeam, active: ActiveAdapters, warnings: list[str]
) -> Callable[..., Any]:
    """The pipeline's `encode_prompt`, with the adapters, and with its warnings kept in `warnings`."""
    encode = pipeline.encode_prompt

    def encode_prompt(*args: Any, **kwargs: Any) -> Any:
        with adapters.text(active), overheard(encode.__func__.__module__) as messages:
            encoded = encode(*args, **kwargs)
        warnings.extend(message for message in messages if message not in warnings)
        return encoded

    return encode_prompt
