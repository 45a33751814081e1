"""Loads, updates and unloads models of a running server, for the bearer of the admin's key alone."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar, cast

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sheaf.http.bodies import offload, read_body
from sheaf.http.encodings import JSON_TYPE
from sheaf.http.exchange import Exchange
from sheaf.http.keys import Access
from sheaf.http.limits import Limits
from sheaf.http.memory import Memory, Share
from sheaf.http.threads import in_thread
from sheaf.interrupts import BrokeOutError, contained
from sheaf.registry import backend_names, is_backend
from sheaf.spec import ModelSpec
from sheaf_client.contracts.models import ModelInfo, ModelList
from sheaf_client.contracts.problem import Fault
from sheaf_client.errors import (
    BackendError,
    DeadlineExceededError,
    InvalidRequestError,
    ProblemError,
    UnavailableError,
)
from sheaf_client.protocol import invalid_request, pointer

log = logging.getLogger("sheaf.http")
#: Seconds that a load which was given up, and its thread, may take to say so.
_MORE = 2.0
T = TypeVar("T")


class ChangeableModels(Protocol):
    """Models that can be loaded and unloaded while others are served; it takes as long as loading does."""

    def specs(self) -> Sequence[ModelSpec]: ...

    def list(self) -> ModelList: ...

    def put(self, spec: ModelSpec, *, timeout: float | None = None) -> bool:
        """Load a model, or replace the one of its name; whether there was none.

        Raises `DeadlineExceededError`, and nothing has changed, where loading takes longer than `timeout`.
        """
        ...

    def unload(self, name: str) -> None: ...


def admin_routes(models: ChangeableModels, limits: Limits, memory: Memory, access: Access) -> list[Route]:
    """The routes under `/admin`."""
    admin = _Admin(models, limits, memory, access)
    return [
        Route("/admin/models", admin.list_models, methods=["GET"]),
        Route("/admin/models/{model_name}", admin.put, methods=["PUT"]),
        Route("/admin/models/{model_name}", admin.delete, methods=["DELETE"]),
    ]


class _Admin:
    def __init__(self, models: ChangeableModels, limits: Limits, memory: Memory, access: Access) -> None:
        self._models = models
        self._limits = limits
        self._memory = memory
        self._access = access
        self._changing: set[str] = set()

    async def list_models(self, request: Request) -> Response:
        request.scope["sheaf.exchange"].route = "admin"
        known = {info.name: info for info in self._models.list().models}
        entries = [
            {**spec.model_dump(mode="json", exclude={"backend_cls"}), "ready": known[spec.name].ready}
            for spec in self._models.specs()
            if spec.name in known
        ]
        return Response(json.dumps({"models": entries}, default=str), media_type=JSON_TYPE)

    async def put(self, request: Request) -> Response:
        """200 with the model where it was replaced, 201 where it is new."""
        exchange: Exchange = request.scope["sheaf.exchange"]
        exchange.route = "admin"
        share = exchange.share = Share(self._memory, "/admin")
        body = await read_body(exchange, self._limits, self._memory, share)
        content: Any = await offload(len(body.content), body.parse, self._memory, share)
        spec = self._access.weigh(_spec(content, request.path_params["model_name"]))
        load = partial(self._models.put, spec, timeout=self._limits.change_timeout)
        new = await self._change(load, spec.name)
        info = next((model for model in self._models.list().models if model.name == spec.name), None)
        if info is None:
            raise UnavailableError("The model was unloaded again.")
        log.info("%s was %s by the admin", spec.name, "loaded" if new else "updated")
        return _info(info, 201 if new else 200)

    async def delete(self, request: Request) -> Response:
        request.scope["sheaf.exchange"].route = "admin"
        name: str = request.path_params["model_name"]
        await self._change(partial(self._models.unload, name), name)
        log.info("%s was unloaded by the admin", name)
        return Response(status_code=204)

    async def _change(self, work: Callable[[], T], name: str) -> T:
        """Change one model on a thread of its own: one that hangs holds up neither others nor the process."""
        if name in self._changing:
            raise UnavailableError("Another change of this model is under way.", retry_after=5)
        self._changing.add(name)
        done = in_thread(work, name=f"sheaf-change-{name}")
        done.add_done_callback(lambda _: self._changing.discard(name))
        seconds = self._limits.change_timeout
        try:
            # What is loading gives up by itself; this is for what an old version leaves undone.
            async with asyncio.timeout(seconds + _MORE):
                return await asyncio.shield(done)
        except ProblemError:
            raise
        except Exception as error:
            if not done.done():
                text = f"The change was not done within {seconds:g} s, and goes on."
                raise DeadlineExceededError(text) from None
            log.exception("%s could not be changed", name)
            # The admin is told why: it is their deployment.
            text = f"{name} could not be loaded: {type(error).__name__}: {error}"
            raise BackendError(text[:1000]) from error


def _info(info: ModelInfo, status: int) -> Response:
    return Response(info.model_dump_json(), status_code=status, media_type=JSON_TYPE)


def _spec(content: Any, name: str) -> ModelSpec:
    """The spec in a body; only registered backends can be named, so that no code is imported by a request."""
    if not isinstance(content, dict):
        raise _refusal("wrong_type", (), "Must be an object: a ModelSpec.")
    members = {"name": name, **cast("dict[str, Any]", content)}
    if "backend_cls" in members:
        raise _refusal("not_allowed", ("backend_cls",), "Name a registered backend instead.")
    if members["name"] != name:
        raise _refusal("mismatch", ("name",), f"The URL names {name}.")
    if not is_backend(backend := members.get("backend")):
        code = "missing" if backend is None else "not_allowed"
        raise _refusal(code, ("backend",), f"Must be one of: {', '.join(backend_names())}.")
    try:
        spec = ModelSpec.model_validate(members)
    except ValidationError as error:
        raise invalid_request(error, members) from None
    if spec.lora is not None and (loose := spec.lora.unconfined()):
        message = f"{', '.join(loose)}: a local path needs `root`, the folder that adapters lie in."
        raise _refusal("missing", ("lora", "root"), message)
    for setting in spec.backend_class.trusted_settings:
        if spec.backend_kwargs.get(setting, False) is not False:
            message = f"{setting} may be set only in the server's own settings, not over HTTP."
            raise _refusal("not_allowed", ("backend_kwargs", setting), message)
    try:
        contained(spec.make_backend)()
    except (ValueError, BrokeOutError) as error:
        raise _refusal("not_allowed", ("backend_kwargs",), str(error)) from None
    return spec


def _refusal(code: str, loc: tuple[str, ...], message: str) -> InvalidRequestError:
    fault = Fault(code=code, path=pointer(loc), message=message)
    return InvalidRequestError("The spec is invalid.", errors=[fault])
