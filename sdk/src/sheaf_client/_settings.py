"""What a client was made with: the keywords of its making, and the options that they give each call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from sheaf_client import _arguments as arguments
from sheaf_client._adapters import Adapters
from sheaf_client._transport import CallOptions

if TYPE_CHECKING:
    from sheaf_client._middleware import AsyncMiddleware, Middleware

#: Seconds a call may take in all unless the caller says otherwise.
DEFAULT_TIMEOUT = 60.0
#: Most bytes of an answer, or of one event of a stream, unless the caller says otherwise.
DEFAULT_ANSWER_BYTES = 512 * 2**20


class ClientSettings(TypedDict, total=False):
    """Keywords of `with_options`, `local` and `asgi`; they mean what they mean for `Sheaf`."""

    api_key: str | None
    model: str | None
    timeout: float | None
    max_retries: int
    max_answer_bytes: int | None
    headers: Mapping[str, str]
    binary: Literal["auto", "always", "never"]
    middleware: Sequence[Middleware] | Sequence[AsyncMiddleware]
    adapters: Sequence[str]


@dataclass(frozen=True)
class Settings:
    """What a client was made with; `with_options` makes another from it.

    Raises:
        ArgumentError: One of them cannot be used.
    """

    api_key: str | None = field(default=None, repr=False)
    model: str | None = None
    timeout: float | None = DEFAULT_TIMEOUT
    max_retries: int = 2
    max_answer_bytes: int | None = DEFAULT_ANSWER_BYTES
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    binary: Literal["auto", "always", "never"] = "auto"
    middleware: Sequence[Callable[..., Any]] = ()
    adapters: Sequence[str] = ()

    def __post_init__(self) -> None:
        # Refused before anything is connected or loaded; `vars` because the class is frozen.
        vars(self).update(
            api_key=arguments.read_key(self.api_key),
            model=arguments.read_model(self.model),
            timeout=arguments.read_timeout(self.timeout),
            max_retries=arguments.read_retries(self.max_retries),
            max_answer_bytes=arguments.read_answer_bytes(self.max_answer_bytes),
            headers=arguments.read_headers(self.headers),
            binary=arguments.read_binary(self.binary),
            middleware=arguments.read_middleware(self.middleware),
        )
        _ = self.selection

    @cached_property
    def selection(self) -> Adapters:
        """The adapters as calls get them."""
        return Adapters.read(self.adapters)

    def call(self, timeout: float | None, headers: Mapping[str, str] | None) -> CallOptions:
        """The options of one call: these, with the call's own over them."""
        own = arguments.read_headers(headers, "extra_headers") if headers else {}
        key = {"authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        return CallOptions(
            timeout=self.timeout if timeout is None else arguments.read_timeout(timeout),
            max_retries=self.max_retries,
            max_answer_bytes=self.max_answer_bytes,
            headers={**key, **self.headers, **own},
            binary=self.binary,
            middleware=self.middleware,
        )
