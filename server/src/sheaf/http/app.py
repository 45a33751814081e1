"""Builds the ASGI app over the models of one process. It serves the schema's routes and infers nothing.

POST /{model_name}/{model_type}/{operation} · /predict · /stream · /batch
GET  /{model_name}/health · /ready          GET / · /models · /metrics · /docs · /openapi.json
PUT, DELETE /admin/models/{name}            GET /admin/models, where the host lets models change
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.routing import BaseRoute, Route, Router
from starlette.types import Lifespan, Receive, Scope, Send

from sheaf.http.admin import ChangeableModels, admin_routes
from sheaf.http.answering import Answering
from sheaf.http.auth import Authentication
from sheaf.http.dispatch import Dispatcher, call_routes
from sheaf.http.docs import docs_routes
from sheaf.http.endpoints import Endpoints, Models
from sheaf.http.exchange import Exchange
from sheaf.http.heads import Origins
from sheaf.http.hosts import Hosts
from sheaf.http.keys import Access
from sheaf.http.limits import Limits
from sheaf.http.memory import Memory
from sheaf.http.preflight import answer_preflight, is_preflight
from sheaf.http.problems import as_problem, on_http_exception, problem_response
from sheaf.http.quotas import Account
from sheaf.http.telemetry import Observed, metrics_endpoint
from sheaf_client.errors import UnavailableError

__all__ = ["Access", "Limits", "Models", "create_app"]


def create_app(
    models: Models,
    *,
    limits: Limits | None = None,
    access: Access | None = None,
    changeable: ChangeableModels | None = None,
    lifespan: Lifespan[Any] | None = None,
) -> App:
    """The app over `models`. Loading and stopping them is the host's business, in `lifespan` or before.

    Args:
        models: What is served.
        limits: Sizes and times that are accepted.
        access: Who may call; what `SHEAF_API_KEYS` and `SHEAF_ADMIN_KEY` say when absent.
        changeable: The models that `/admin` loads and unloads, where `access` names an admin's key.
        lifespan: What runs around serving.
    """
    limits = limits or Limits()
    access = access or Access.from_environment()
    if changeable is None:
        access = access.model_copy(update={"admin": None})
    memory = Memory(limits)
    endpoints = Endpoints(models, limits, memory)
    routes: list[BaseRoute] = [
        Route("/models", endpoints.list_models, methods=["GET"]),
        Route("/metrics", metrics_endpoint(models.telemetry), methods=["GET"]),
        *docs_routes(endpoints.seen_models),
        *(admin_routes(changeable, limits, memory, access) if changeable is not None else ()),
        Route("/{model_name}/health", endpoints.health, methods=["GET"]),
        Route("/{model_name}/ready", endpoints.ready, methods=["GET"]),
        *call_routes(endpoints),
    ]
    # A redirect would send the body, and the key, to wherever the Host header points.
    router = Router(routes, redirect_slashes=False, lifespan=lifespan)
    origins = Origins(limits.origins) if limits.origins else None
    hosts = Hosts(limits.allowed_hosts) if limits.allowed_hosts else None
    return App(models, Authentication(access), Dispatcher(endpoints), router, origins, hosts)


class App:
    """The way of every request: observed, let in, called or routed; what goes wrong is told as a problem."""

    def __init__(
        self,
        models: Models,
        authentication: Authentication,
        dispatcher: Dispatcher,
        router: Router,
        origins: Origins | None,
        hosts: Hosts | None,
    ) -> None:
        self._telemetry = models.telemetry
        self._authentication, self._dispatcher = authentication, dispatcher
        self._router, self._origins, self._hosts = router, origins, hosts
        self._routed = ExceptionMiddleware(router, handlers={HTTPException: on_http_exception})
        #: Whether the host ends: it cancels what is not answered then, and that is told so.
        self.ending = False

    def end(self) -> None:
        """Tell those whose requests are cancelled from now on that the server ends: they have not left."""
        self.ending = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._router({**scope, "app": self}, receive, send)
            return
        begun = self.begin(scope, receive, send)
        if not begun.finish():
            await begun.rest()

    def begin(self, scope: Scope, receive: Receive, send: Send) -> InFlightRequest:
        """Do what a request needs as far as that takes no waiting, up to its model's line; raises nothing.

        Servers that have the whole of a small request may call this before there is a task for it.
        """
        exchange = Exchange(scope, receive, send, self._origins)
        observed = Observed(self._telemetry, exchange)
        account: Account | None = None
        with observed:
            try:
                if self._hosts is not None:
                    self._hosts.check(exchange.header(b"host"))
                if self._origins is not None and is_preflight(exchange):
                    rest = answer_preflight(exchange)
                else:
                    account = self._authentication.authenticate(exchange)
                    rest = self._dispatcher.begin(exchange, self._route)
            except Exception as error:  # noqa: BLE001 - told to the client
                rest = _refuse(exchange, error)
        return InFlightRequest(self, exchange, observed, account, rest)

    async def _route(self, exchange: Exchange) -> None:
        # Starlette's own refusals are raised only where it knows of an app around it.
        scope = {**exchange.scope, "app": self, "sheaf.exchange": exchange}
        await self._routed(scope, exchange.receive, exchange.send)


class InFlightRequest:
    """A request under way: `finish` what takes no waiting, and have a task do the `rest`, if any."""

    __slots__ = ("_account", "_app", "_exchange", "_observed", "_rest")

    def __init__(
        self,
        app: App,
        exchange: Exchange,
        observed: Observed,
        account: Account | None,
        rest: Awaitable[None],
    ) -> None:
        self._app, self._exchange, self._observed = app, exchange, observed
        self._account, self._rest = account, rest

    def finish(self) -> bool:
        """Answer where that takes no waiting; False where it does."""
        answering = self._rest
        if not isinstance(answering, Answering) or (outcome := answering.outcome()) is None:
            return False
        with self._observed:
            try:
                rest = answering.answer(outcome)
            except Exception as error:
                if self._exchange.started:
                    raise
                rest = _refuse(self._exchange, error)
            if rest is None:
                self._end()
                return True
        self._rest = rest
        return False

    def call_back(self, tell: Callable[[], None] | None, within: float) -> bool:
        """`PendingRequest.call_back`; False where it is no model that is waited for."""
        return isinstance(self._rest, Answering) and self._rest.call_back(tell, within)

    def leave(self) -> None:
        """The client left while its model was at work: its place is free, and nobody is answered."""
        with self._observed:
            if isinstance(self._rest, Answering):
                self._rest.cancel()
            self._exchange.left = True
            self._end()

    async def rest(self) -> None:
        """Wait for what has to be waited for, and answer."""
        exchange = self._exchange
        with self._observed:
            try:
                await self._rest
            except asyncio.CancelledError:
                if self._app.ending and not exchange.started:
                    await _refuse(exchange, UnavailableError("The server is stopping.", retry_after=1))
                    return
                exchange.left = not exchange.complete
                if not self._app.ending:
                    raise
            except Exception as error:
                if exchange.started:
                    raise
                await _refuse(exchange, error)
            finally:
                self._end()

    def _end(self) -> None:
        share = self._exchange.share
        if share is not None and share.size:
            share.end()
        if self._account is not None:
            self._account.end()
        self._observed.end()


def _refuse(exchange: Exchange, error: Exception) -> Awaitable[None]:
    """Tell the client of an error."""
    problem = as_problem(error)
    exchange.code = problem.code
    problem.request_id = exchange.request_id
    # Its frames hold the request, which holds it: a circle that the collector alone would free.
    problem.__traceback__ = problem.__cause__ = problem.__context__ = None
    return problem_response(problem)(exchange.scope, exchange.receive, exchange.send)
