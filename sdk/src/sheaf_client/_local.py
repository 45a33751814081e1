"""Calls to models in this process: the same contracts and errors with no sockets, no JSON and no server.

The engine is imported when a local client is made; it is the one place where the client knows of it.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future, wait
from contextlib import aclosing, closing
from typing import TYPE_CHECKING, Any, ClassVar, Never, TypeVar, cast

from sheaf_client._errors import ProblemError
from sheaf_client._operation import Operation, ProgressT_co
from sheaf_client._streaming import Event, ResultEvent
from sheaf_client._transport import Call, CallOptions, ManyCall, check_open, no_raw_responses
from sheaf_client._waiting import wait_awake
from sheaf_client.contracts.base import BaseRequest, BaseResponse
from sheaf_client.contracts.events import ProgressEvent
from sheaf_client.contracts.models import ModelList
from sheaf_client.errors import DeadlineExceededError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sheaf.local import LocalModels
    from sheaf.spec import ModelSpec

ResponseT = TypeVar("ResponseT", bound=BaseResponse)


def open_models(models: Iterable[ModelSpec | str] | ModelSpec | str) -> LocalModels:
    """Load the models here; raises `ImportError` with the command to install where the engine is missing."""
    try:
        from sheaf.local import LocalModels
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "sheaf":
            raise
        raise ImportError(
            "models in this process need the package of the server, sheaf-serve: in a checkout of Sheaf, "
            'pip install "./server[time-series]" (a package of that name on the index is another project\'s)'
        ) from error
    return LocalModels.start(models)


class LocalTransport:
    """Calls that wait for models in this process."""

    over_http: ClassVar[bool] = False

    def __init__(self, models: LocalModels, *, own: bool) -> None:
        self._held = models
        self._own = own
        self._closed = False

    @property
    def _models(self) -> LocalModels:
        check_open(closed=self._closed)
        return self._held

    def call(self, call: Call[ResponseT]) -> ResponseT:
        runtime = self._models.find(call.request.model_name, call.operation.model_type)
        return cast(ResponseT, runtime.predict_now(call.request, timeout=call.options.timeout))

    def call_many(self, call: ManyCall[ResponseT]) -> list[ResponseT | ProblemError]:
        timeout = call.options.timeout
        deadline = None if timeout is None else time.monotonic() + timeout
        submitted = [self._submit(request, call) for request in call.requests]
        return [_outcome(future, deadline) for future in submitted]

    def _submit(self, request: BaseRequest, call: ManyCall[Any]) -> Future[Any] | ProblemError:
        runtime = self._models.find(request.model_name, call.operation.model_type)
        try:
            return runtime.submit(request, timeout=call.options.timeout)
        except ProblemError as error:
            return error

    def stream(self, call: Call[ResponseT, ProgressT_co]) -> Iterator[Event[ResponseT, ProgressT_co]]:
        runtime = self._models.find(call.request.model_name, call.operation.model_type)
        with closing(runtime.iter_stream(call.request, timeout=call.options.timeout)) as events:
            for event in events:
                yield _of(call.operation, event)

    def raw_call(self, _: Call[Any], /) -> Never:
        raise no_raw_responses()

    def raw_call_many(self, _: ManyCall[Any], /) -> Never:
        raise no_raw_responses()

    def raw_stream(self, _: Call[Any, Any], /) -> Never:
        raise no_raw_responses()

    def models(self, options: CallOptions) -> ModelList:  # noqa: ARG002 - nothing to wait for here
        return self._models.list()

    def close(self) -> None:
        self._closed = True
        if not self._own:
            return
        if isinstance(sys.exc_info()[1], KeyboardInterrupt):
            self._held.refuse()  # who pressed Ctrl-C waits for no call, whoever asked for it
        self._held.stop()


class AsyncLocalTransport:
    """Calls that await models in this process."""

    over_http: ClassVar[bool] = False

    def __init__(self, models: LocalModels, *, own: bool) -> None:
        self._held = models
        self._own = own
        self._closed = False

    @property
    def _models(self) -> LocalModels:
        check_open(closed=self._closed)
        return self._held

    async def call(self, call: Call[ResponseT]) -> ResponseT:
        runtime = self._models.find(call.request.model_name, call.operation.model_type)
        return cast(ResponseT, await runtime.predict(call.request, timeout=call.options.timeout))

    async def call_many(self, call: ManyCall[ResponseT]) -> list[ResponseT | ProblemError]:
        runtime = self._models.find(call.requests[0].model_name, call.operation.model_type)
        return await runtime.predict_many(call.requests, timeout=call.options.timeout)

    async def stream(
        self, call: Call[ResponseT, ProgressT_co]
    ) -> AsyncIterator[Event[ResponseT, ProgressT_co]]:
        runtime = self._models.find(call.request.model_name, call.operation.model_type)
        async with aclosing(runtime.stream(call.request, timeout=call.options.timeout)) as events:
            async for event in events:
                yield _of(call.operation, event)

    async def raw_call(self, _: Call[Any], /) -> Never:
        raise no_raw_responses()

    async def raw_call_many(self, _: ManyCall[Any], /) -> Never:
        raise no_raw_responses()

    def raw_stream(self, _: Call[Any, Any], /) -> Never:
        raise no_raw_responses()

    async def models(self, options: CallOptions) -> ModelList:  # noqa: ARG002 - nothing to wait for here
        return self._models.list()

    async def close(self) -> None:
        self._closed = True
        if not self._own:
            return
        # Ctrl-C cancels the task that `asyncio.run` runs; and whoever is cancelled is to come to its end.
        if isinstance(sys.exc_info()[1], KeyboardInterrupt | asyncio.CancelledError):
            self._held.refuse()
        await asyncio.to_thread(self._held.stop)


def _of(
    operation: Operation[Any, ResponseT, ProgressT_co], event: ProgressEvent | ResultEvent[Any]
) -> Event[ResponseT, ProgressT_co]:
    """The event as the operation's own; a model with nothing to add tells its steps by the plain one."""
    if isinstance(event, ResultEvent | operation.progress):
        return event
    return operation.progress(step=event.step, total_steps=event.total_steps)


def _outcome(submitted: Future[Any] | ProblemError, deadline: float | None) -> Any:
    if isinstance(submitted, ProblemError):
        return submitted

    def there(seconds: float) -> bool:
        return bool(wait([submitted], seconds).done)

    try:
        if wait_awake(there, None if deadline is None else max(0.0, deadline - time.monotonic())):
            return submitted.result()
    except ProblemError as error:
        return error
    submitted.cancel()
    return DeadlineExceededError("The deadline passed before the answer was ready.")
