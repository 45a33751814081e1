"""The client of Sheaf: typed calls to models that are not text LLMs, over HTTP or in this process.

Names are imported when they are first used, so that `import sheaf_client` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sheaf_client._client import AsyncSheaf, Sheaf
    from sheaf_client._middleware import AsyncMiddleware, Middleware, Send
    from sheaf_client._raw import AsyncRawStream, RawResponse, RawStream
    from sheaf_client._streaming import AsyncStream, ResultEvent, Stream, UnknownEvent
    from sheaf_client.contracts.events import ProgressEvent
    from sheaf_client.errors import (
        AdaptersNotSupportedError,
        AdaptersNotTakenError,
        ArgumentError,
        BadResponseError,
        CallTimeoutError,
        ClientClosedError,
        ConnectionFailedError,
        ForkedError,
        InvalidFrameError,
        ProblemError,
        SheafError,
        TransportError,
    )

__version__ = "0.1.0"

_HOMES = {
    "AdaptersNotSupportedError": "errors",
    "AdaptersNotTakenError": "errors",
    "ArgumentError": "errors",
    "AsyncMiddleware": "_middleware",
    "AsyncRawStream": "_raw",
    "AsyncSheaf": "_client",
    "AsyncStream": "_streaming",
    "BadResponseError": "errors",
    "CallTimeoutError": "errors",
    "ClientClosedError": "errors",
    "ConnectionFailedError": "errors",
    "ForkedError": "errors",
    "InvalidFrameError": "errors",
    "Middleware": "_middleware",
    "ProblemError": "errors",
    "ProgressEvent": "contracts.events",
    "RawResponse": "_raw",
    "RawStream": "_raw",
    "ResultEvent": "_streaming",
    "Send": "_middleware",
    "Sheaf": "_client",
    "SheafError": "errors",
    "Stream": "_streaming",
    "TransportError": "errors",
    "UnknownEvent": "_streaming",
}

__all__ = [
    "AdaptersNotSupportedError",
    "AdaptersNotTakenError",
    "ArgumentError",
    "AsyncMiddleware",
    "AsyncRawStream",
    "AsyncSheaf",
    "AsyncStream",
    "BadResponseError",
    "CallTimeoutError",
    "ClientClosedError",
    "ConnectionFailedError",
    "ForkedError",
    "InvalidFrameError",
    "Middleware",
    "ProblemError",
    "ProgressEvent",
    "RawResponse",
    "RawStream",
    "ResultEvent",
    "Send",
    "Sheaf",
    "SheafError",
    "Stream",
    "TransportError",
    "UnknownEvent",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(importlib.import_module(f"sheaf_client.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'sheaf_client' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
