"""Builds the ASGI app over the models of one process. It serves the schema's routes and infers nothing.

POST /{model_name}/{model_type}/{operation} · /predict · /stream · /batch
GET  /{model_name}/health · /ready          GET /models · /metrics · /docs · /openapi.json
PUT, DELETE /admin/models/{name}            GET /admin/models, where the host lets models change
"""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route
from starlette.types import ASGIApp, Lifespan

from sheaf.http.admin import ChangeableModels, admin_routes
from sheaf.http.bodies import Incoming
from sheaf.http.calls import Calls, call_routes
from sheaf.http.docs import docs_routes
from sheaf.http.endpoints import Endpoints, Models
from sheaf.http.gate import Gate
from sheaf.http.keys import Access
from sheaf.http.limits import Limits
from sheaf.http.problems import ProblemBoundary, on_http_exception
from sheaf.http.telemetry import Observed, metrics_endpoint

__all__ = ["Access", "Limits", "Models", "create_app"]


def create_app(
    models: Models,
    *,
    limits: Limits | None = None,
    access: Access | None = None,
    changeable: ChangeableModels | None = None,
    lifespan: Lifespan[Any] | None = None,
) -> ASGIApp:
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
    incoming = Incoming(limits)
    endpoints = Endpoints(models, limits, incoming)
    routes = [
        Route("/models", endpoints.list_models, methods=["GET"]),
        Route("/metrics", metrics_endpoint(models.telemetry), methods=["GET"]),
        *docs_routes(),
        *(admin_routes(changeable, limits, incoming, access) if changeable is not None else ()),
        Route("/{model_name}/health", endpoints.health, methods=["GET"]),
        Route("/{model_name}/ready", endpoints.ready, methods=["GET"]),
        *call_routes(endpoints),
    ]
    middleware = [
        Middleware(Observed, telemetry=models.telemetry),
        Middleware(ProblemBoundary),
        Middleware(Gate, access=access),
        Middleware(Calls, endpoints=endpoints),
    ]
    if limits.origins:
        # Outermost, so that refusals can be read by pages too.
        middleware.insert(
            0,
            Middleware(
                CORSMiddleware,
                allow_origins=list(limits.origins),
                allow_methods=["GET", "POST"],
                allow_headers=["*"],
                expose_headers=["x-request-id", "retry-after", "ratelimit", "ratelimit-policy"],
            ),
        )
    app = Starlette(
        routes=routes,
        middleware=middleware,
        exception_handlers={HTTPException: on_http_exception},
        lifespan=lifespan,
    )
    # A redirect would send the body, and the key, to wherever the Host header points.
    app.router.redirect_slashes = False
    return app
