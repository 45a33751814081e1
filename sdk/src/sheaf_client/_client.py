"""`Sheaf` and `AsyncSheaf`: one typed client, whatever stands behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Never, Self, Unpack

from sheaf_client._arguments import (
    check_url,
    is_loopback,
    key_or_environment,
    read_base_url,
    without_secrets,
)
from sheaf_client._errors import ArgumentError
from sheaf_client._middleware import log_as_told
from sheaf_client._settings import DEFAULT_ANSWER_BYTES, DEFAULT_TIMEOUT, ClientSettings, Settings
from sheaf_client._signatures import signed
from sheaf_client._transport import AsyncTransport, CallOptions, Transport, no_raw_responses
from sheaf_client.resources import AsyncRawResources, AsyncResources, RawResources, Resources

if TYPE_CHECKING:
    from collections.abc import Iterable

    import httpx

    from sheaf.spec import ModelSpec
    from sheaf_client._adapters import Adapters
    from sheaf_client._asgi import ASGIApp
    from sheaf_client._middleware import AsyncMiddleware, Middleware
    from sheaf_client.contracts.models import ModelInfo


class _Client:
    """The part of a client that waits for nothing."""

    transport: Any  # each kind of client says which
    _settings: Settings
    _target: str

    @property
    def model(self) -> str | None:
        """Name of the model that calls go to when they name none."""
        return self._settings.model

    @property
    def adapters(self) -> Adapters:
        """The LoRA adapters of calls that name none."""
        return self._settings.selection

    def options(self, timeout: float | None = None, headers: Mapping[str, str] | None = None) -> CallOptions:
        """The options of one call: the client's, with the call's own over them."""
        return self._settings.call(timeout, headers)

    @signed
    def with_options(self, **changes: Unpack[ClientSettings]) -> Self:
        """The same client, over the same connections, with other settings.

        What is not named stays; what is named is replaced, `headers` as a whole. Closing either closes both.
        """
        return self._make(self.transport, self._target, replace(self._settings, **changes))

    def with_adapters(self, *adapters: str) -> Self:
        """The same client, over the same connections, whose calls apply these LoRA adapters.

            sketched = client.with_adapters("sketch@0.8", "ink")
            sketched.diffusion.generate(prompt="a lighthouse")

        A call or a contract that has `adapters` of its own keeps them. Other operations than those with
        `adapters` raise `AdaptersNotSupportedError`.

        Args:
            adapters: Names as the deployment has them, `name` or `name@weight`, in place of those that this
                client selects; none selects none. Where no weight is written, the deployment's own hold;
                where some are, the others are 1. The last `@` counts.

        Raises:
            ArgumentError: A weight is no finite number, or a name is empty or there twice.
        """
        return self.with_options(adapters=adapters)

    def _check_raw(self) -> None:
        if not self.transport.over_http:
            raise no_raw_responses()

    @classmethod
    def _make(cls, transport: Any, target: str, settings: Settings) -> Self:
        """A client over a transport that is there already."""
        _check_middleware(settings, over_http=transport.over_http)
        client = cls.__new__(cls)
        vars(client).update(transport=transport, _target=target, _settings=settings)
        return client

    def _connect(
        self,
        transport: Callable[..., Any],
        base_url: str | None,
        http_client: Any,
        new_client: type[Any],
    ) -> None:
        """Take the caller's httpx client or make our own; an address in theirs takes the place of none."""
        log_as_told()
        if http_client is not None:
            if not isinstance(http_client, new_client):
                wanted, given = new_client.__name__, type(http_client).__name__
                raise ArgumentError(f"http_client is an httpx.{wanted} here, not a {given}")
            own = "" if base_url else str(http_client.base_url)
            if own:
                check_url(own, "base_url of http_client")
            url = own or read_base_url(base_url)
            self.transport = transport(http_client, make=None, base_url=url)
        else:
            import httpx

            url = read_base_url(base_url)
            # No proxy leads to this machine, whatever the environment says.
            direct = {f"all://{httpx.URL(url).netloc.decode()}": None} if is_loopback(url) else None
            tls = httpx.create_ssl_context()

            def make() -> Any:
                # No cookies: with those of a server's liking each request would be larger than the last.
                jar = CookieJar(DefaultCookiePolicy(allowed_domains=()))
                return new_client(
                    base_url=url, follow_redirects=False, verify=tls, mounts=direct, cookies=jar
                )

            self.transport = transport(make(), make=make, base_url=url)
        self._target = without_secrets(url)

    def __repr__(self) -> str:
        selected = f", adapters {self.adapters}" if self.adapters.names else ""
        return f"{type(self).__name__}({self._target}{selected})"

    def __reduce__(self) -> Never:
        name = type(self).__name__
        raise TypeError(
            f"a {name} holds connections or models and cannot be copied or pickled; make one where it is "
            "needed, or use `with_options`"
        )


class Sheaf(_Client, Resources):
    """A client that waits for each answer.

        client = Sheaf("http://127.0.0.1:8000")
        forecast = client.time_series.forecast(model="chronos", history=[…], horizon=12, frequency="1M")

    Args:
        base_url: Where the server is; `SHEAF_BASE_URL`, or `http://127.0.0.1:8000`, when absent.
        api_key: Sent as a bearer token; `SHEAF_API_KEY` when absent.
        model: Model that calls go to when they name none.
        timeout: Seconds a call may take in all, tries and pauses included; None for no limit.
        max_retries: Most further tries after a refusal that may pass or a connection that failed.
        max_answer_bytes: Most bytes of an answer once it is unpacked, or of one event of a stream; what is
            larger is a `BadResponseError`. 512 MiB unless given; None for no limit.
        headers: Sent with each call.
        binary: When bodies go as MessagePack, tensors and files as raw bytes: by size, always, never.
        middleware: Called around each try, the first one outermost: `(send, next) -> httpx.Response`.
        adapters: LoRA adapters of calls that name none, as `with_adapters` takes them.
        http_client: An httpx client of your own, for proxies, certificates or connection limits; it is not
            closed with this one. Its `base_url` may be left out.

    Raises:
        ArgumentError: One of them cannot be used; its text says which, and shows no key.

    `SHEAF_LOG=info` logs one line per try to standard error, `SHEAF_LOG=debug` headers too; neither bodies
    nor keys. The logger is `sheaf_client`.
    """

    transport: Transport

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        model: str | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        max_retries: int = 2,
        max_answer_bytes: int | None = DEFAULT_ANSWER_BYTES,
        headers: Mapping[str, str] | None = None,
        binary: Literal["auto", "always", "never"] = "auto",
        middleware: Sequence[Middleware] = (),
        adapters: Sequence[str] = (),
        http_client: httpx.Client | None = None,
    ) -> None:
        import httpx

        from sheaf_client._http import HTTPTransport

        self._settings = Settings(
            api_key=key_or_environment(api_key),
            model=model,
            timeout=timeout,
            max_retries=max_retries,
            max_answer_bytes=max_answer_bytes,
            headers={} if headers is None else headers,
            binary=binary,
            middleware=middleware,
            adapters=adapters,
        )
        self._connect(HTTPTransport, base_url, http_client, httpx.Client)

    @classmethod
    @signed
    def local(
        cls, models: Iterable[ModelSpec | str] | ModelSpec | str, **settings: Unpack[ClientSettings]
    ) -> Self:
        """A client whose models run in this process, loaded before this returns.

        Args:
            models: Specs, or names of backends whose defaults will do: `Sheaf.local(["statsforecast"])`.
            settings: `model`, `timeout`, `max_retries`, as above.
        """
        from sheaf_client._local import LocalTransport, open_models

        chosen = Settings(**settings)
        _check_middleware(chosen, over_http=False)
        held = open_models(models)
        return cls._make(LocalTransport(held, own=True), repr(held), chosen)

    @classmethod
    @signed
    def asgi(cls, app: ASGIApp, **settings: Unpack[ClientSettings]) -> Self:
        """A client of an ASGI app in this process: all of HTTP but the socket."""
        import httpx

        from sheaf_client._asgi import ASGITransport
        from sheaf_client._http import HTTPTransport

        def make() -> httpx.Client:
            return httpx.Client(transport=ASGITransport(app), base_url="http://app")

        chosen = Settings(**settings)
        return cls._make(HTTPTransport(make(), make=make, base_url="http://app"), "ASGI app", chosen)

    @cached_property
    def with_raw_response(self) -> RawResources:
        """The same operations, each answered by a `RawResponse`: status, headers, body, and `parse()`."""
        self._check_raw()
        return RawResources(self)

    @cached_property
    def models(self) -> Models:
        """The deployed models."""
        return Models(self)

    def close(self) -> None:
        """Close the connections, or stop the models of a local client."""
        self.transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncSheaf(_Client, AsyncResources):
    """A client to be awaited.

    Its arguments are those of `Sheaf`:

        async with AsyncSheaf() as client:
            forecast = await client.time_series.forecast(model="chronos", …)
    """

    transport: AsyncTransport

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        model: str | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        max_retries: int = 2,
        max_answer_bytes: int | None = DEFAULT_ANSWER_BYTES,
        headers: Mapping[str, str] | None = None,
        binary: Literal["auto", "always", "never"] = "auto",
        middleware: Sequence[AsyncMiddleware] = (),
        adapters: Sequence[str] = (),
        http_client: httpx.AsyncClient | None = None,
    ) -> None:
        import httpx

        from sheaf_client._http import AsyncHTTPTransport

        self._settings = Settings(
            api_key=key_or_environment(api_key),
            model=model,
            timeout=timeout,
            max_retries=max_retries,
            max_answer_bytes=max_answer_bytes,
            headers={} if headers is None else headers,
            binary=binary,
            middleware=middleware,
            adapters=adapters,
        )
        self._connect(AsyncHTTPTransport, base_url, http_client, httpx.AsyncClient)

    @classmethod
    @signed
    def local(
        cls, models: Iterable[ModelSpec | str] | ModelSpec | str, **settings: Unpack[ClientSettings]
    ) -> Self:
        """A client whose models run in this process, loaded before this returns."""
        from sheaf_client._local import AsyncLocalTransport, open_models

        chosen = Settings(**settings)
        _check_middleware(chosen, over_http=False)
        held = open_models(models)
        return cls._make(AsyncLocalTransport(held, own=True), repr(held), chosen)

    @classmethod
    @signed
    def asgi(cls, app: ASGIApp, **settings: Unpack[ClientSettings]) -> Self:
        """A client of an ASGI app in this process and event loop."""
        import httpx

        from sheaf_client._asgi import AsyncASGITransport
        from sheaf_client._http import AsyncHTTPTransport

        def make() -> httpx.AsyncClient:
            return httpx.AsyncClient(transport=AsyncASGITransport(app), base_url="http://app")

        chosen = Settings(**settings)
        return cls._make(AsyncHTTPTransport(make(), make=make, base_url="http://app"), "ASGI app", chosen)

    @cached_property
    def with_raw_response(self) -> AsyncRawResources:
        """The same operations, each answered by a `RawResponse`: status, headers, body, and `parse()`."""
        self._check_raw()
        return AsyncRawResources(self)

    @cached_property
    def models(self) -> AsyncModels:
        """The deployed models."""
        return AsyncModels(self)

    async def close(self) -> None:
        """Close the connections, or stop the models of a local client."""
        await self.transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class Models:
    """What `client.models` offers."""

    def __init__(self, client: Sheaf) -> None:
        self._client = client

    def list(self) -> list[ModelInfo]:
        """The deployed models, in order of their names."""
        return self._client.transport.models(self._client.options()).models


class AsyncModels:
    """What `client.models` offers, awaited."""

    def __init__(self, client: AsyncSheaf) -> None:
        self._client = client

    async def list(self) -> list[ModelInfo]:
        """The deployed models, in order of their names."""
        return (await self._client.transport.models(self._client.options())).models


def _check_middleware(settings: Settings, *, over_http: bool) -> None:
    if settings.middleware and not over_http:
        raise ArgumentError("a local client takes no middleware: nothing goes over HTTP")
