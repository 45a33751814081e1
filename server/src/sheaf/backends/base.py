"""What a backend is: one model, loaded once, that answers batches of typed requests.

The engine calls `load` once and then every other method from one thread of the model's own (or from that of
a lone caller, where `inline` allows it), except `check`, `resolve_adapters`, `batch_key`, `cost`, `steps`,
`answer_size` and `deterministic`, which must be quick, must not touch the model's state, and may run on any
thread. A model that dies or hangs is let go and made anew by the constructor and `load`.

What `batch_predict`, `stream` and the steps get has passed `check`: the engine has seen to it, and to the
contract, the operation and the adapters. Who has no engine calls `predict` or `predict_all`, which check.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Generic

from typing_extensions import TypeVar

from sheaf.backends.contexts import ContextCache
from sheaf.backends.info import BackendInfo
from sheaf.lora import ActiveAdapters, LoRAConfig, select_adapters
from sheaf.scheduling.packing import cost_of
from sheaf_client.contracts.base import BaseRequest, BaseResponse
from sheaf_client.contracts.events import ProgressEvent
from sheaf_client.contracts.problem import Fault
from sheaf_client.errors import InvalidRequestError

RequestT = TypeVar("RequestT", bound=BaseRequest, default=Any)
ResponseT = TypeVar("ResponseT", bound=BaseResponse, default=Any)

#: Words in an error's text that say the accelerator cannot be used any more by this process.
_FATAL = ("CUDA error", "device-side assert", "HIP error", "NCCL error")


#: Milliseconds that a call should take at most which answers one request after another.
LOOP_TARGET_MS = 500.0


class BackendDiedError(RuntimeError):
    """Raised by a backend that cannot go on, such as one whose process ended: the engine loads it anew."""


class ModelBackend(ABC, Generic[RequestT, ResponseT]):
    """A model behind a contract.

    The constructor takes the model's settings as keywords and must be cheap; `load` does the work. A
    request that this model cannot serve raises `InvalidRequestError` from `check`, with the faulty path.
    A backend writes `load`, and `batch_predict` or, for a library that answers one at a time, `predict`.
    """

    #: The contract this backend follows, as in the schema. A property does too.
    model_type: ClassVar[str]

    #: What it needs, which models it loads and on which terms, for lists and pages.
    info: ClassVar[BackendInfo | None] = None

    #: What `check`, `batch_key`, `cost`, `steps`, `answer_size` and `deterministic` need to know of the
    #: loaded model (how much it reads, which elements it knows …), set by `load`: plain data in a frozen
    #: dataclass, which can go to another process. They read nothing else of it, and touch no library of its.
    facts: Any = None

    #: Operations of the contract that it serves, by their names in the schema; the first alone where empty.
    operations: ClassVar[frozenset[str]] = frozenset()

    #: Whether the members of a batch are padded to the longest: the engine then counts a batch as its longest
    #: member's `cost` times its size, and puts near-equal costs together.
    padded: ClassVar[bool] = False

    #: Whether calls are so quick, and the library so indifferent to threads, that a lone caller who waits may
    #: run its call on its own thread, still one call at a time: handing it over costs more than such a call.
    inline: ClassVar[bool] = False

    #: Whether answers rest on `contexts`; of each request `owner_of` then says whose contexts those are.
    keeps_contexts: ClassVar[bool] = False

    #: Milliseconds that one call should take at most where the policy's `target_ms` says nothing. For what
    #: answers a batch one by one: to share a call saves nothing there, and the quick wait for the slow.
    target_ms: ClassVar[float | None] = None

    #: Whether the model takes LoRA adapters, and whether one batch may hold requests with different ones.
    takes_adapters: ClassVar[bool] = False
    mixes_adapters: ClassVar[bool] = False

    #: Settings that only the server's own files and code may give, and no request that loads a model: such as
    #: what lets a file run code.
    trusted_settings: ClassVar[frozenset[str]] = frozenset()

    #: The adapters that the deployment declares, given by its spec before `load`.
    lora: LoRAConfig | None = None

    @classmethod
    def for_settings(
        cls,
        settings: Mapping[str, Any],  # noqa: ARG003 - for those who override it
        model_type: str = "",  # noqa: ARG003
    ) -> type[ModelBackend]:
        """The class that serves these settings, and this contract where one is named.

        Another only where a setting chooses the contract. Raises `ValueError` for a setting that it cannot
        choose by.
        """
        return cls

    @abstractmethod
    def load(self) -> None:
        """Import the library and load the weights; after it the backend is ready to answer."""

    def batch_predict(self, requests: Sequence[RequestT]) -> list[ResponseT | Exception]:
        """Answer requests of one operation that share a `batch_key` in one pass, in their order.

        All of them have passed `check`: what can be refused only while it is computed, such as numbers that
        overflow, is refused here. An exception in the place of a response refuses that request alone; an
        exception raised makes the engine run the batch again in halves until the culprit stands alone. Where
        only `predict` is written, it is called for each request.
        """
        if type(self).predict is ModelBackend.predict:
            raise NotImplementedError(f"{type(self).__name__} writes neither batch_predict nor predict")
        return [self._attempt(request) for request in requests]

    def _attempt(self, request: RequestT) -> ResponseT | Exception:
        try:
            return self.predict(request)
        except Exception as error:
            if isinstance(error, BackendDiedError) or self.is_fatal(error) or self.is_out_of_memory(error):
                raise  # it is about the model, not about this request alone
            return error

    def predict(self, request: RequestT) -> ResponseT:
        """Check and answer one request, without an engine: a batch of one.

        Raises `InvalidRequestError` for what the model cannot serve, and what the model raises.
        """
        (answer,) = self.predict_all([request])
        if isinstance(answer, Exception):
            raise answer
        return answer

    def predict_all(self, requests: Sequence[RequestT]) -> list[ResponseT | Exception]:
        """Check and answer requests, without an engine; those that may share a `batch_predict` do.

        Returns:
            In their order the responses, or in the place of one the error of that request alone.
        """
        answers: dict[int, ResponseT | Exception] = {}
        batches: dict[Hashable, list[int]] = {}
        for index, request in enumerate(requests):
            try:
                if request.model_type != self.model_type:
                    raise other_model_type(self.model_type)
                self.check(request)
            except InvalidRequestError as error:
                answers[index] = error
            else:
                batches.setdefault((type(request), self.batch_key(request)), []).append(index)
        for members in batches.values():
            outcomes = self.batch_predict([requests[index] for index in members])
            answers |= zip(members, outcomes, strict=True)
        return [answers[index] for index in range(len(requests))]

    def stream(self, request: RequestT) -> Iterator[ProgressEvent | ResponseT]:
        """Yield progress and last the response; each step runs alone, so other calls run in between.

        The request has passed `check`. Backends without steps leave this as it is: the engine then puts the
        request into a batch.
        """
        raise NotImplementedError

    def check(self, request: RequestT) -> None:
        """Raise `InvalidRequestError` for what the contract allows and this model cannot do."""

    def resolve_adapters(self, request: RequestT, config: LoRAConfig | None) -> ActiveAdapters:
        """The adapters a request runs with; raises `InvalidRequestError` for one the deployment lacks."""
        return select_adapters(request, config)

    def adapters_of(self, request: RequestT) -> ActiveAdapters:
        """The adapters that an admitted request runs with, and their weights."""
        return self.resolve_adapters(request, self.lora)

    def batch_key(self, request: RequestT) -> Hashable:  # noqa: ARG002 - for those who override it
        """Requests of equal keys may share one `batch_predict`."""
        return None

    def cost(self, request: RequestT) -> float:  # noqa: ARG002 - for those who override it
        """Work this request asks for, in units of the backend's choice; for `max_batch_cost`."""
        return 1.0

    def answer_size(self, request: RequestT) -> int:  # noqa: ARG002 - for those who override it
        """About how many bytes the answer takes as JSON, as far as the request tells; 0 where it is small.

        Where a small request can ask for a large answer, a server sets memory aside for it in advance, or
        refuses it. A number takes about 20 bytes, raw bytes four thirds of theirs. Asked before `check`,
        so it may raise `InvalidRequestError` for what that refuses.
        """
        return 0

    def steps(self, request: RequestT) -> int:  # noqa: ARG002 - for those who override it
        """About how many steps a request takes, each of them with others; 0 where one call answers it.

        Only a `StepwiseBackend` has any.
        """
        return 0

    def padded_cost(self, costs: Sequence[float]) -> float:
        """What a batch of members of such costs computes, padding included; what metrics tell of padding."""
        return cost_of(costs, padded=self.padded)

    def deterministic(self, request: RequestT) -> bool:  # noqa: ARG002 - for those who override it
        """Whether the same request has the same answer, so that a `cache` may keep and share it.

        Only the backend knows, so it is taken to be so: a model that draws must override this and say for
        which requests, as a rule those without a seed that ask for what is drawn. A `seed` in the contract
        tells nothing: a forecaster may draw for sample paths and not for quantiles.
        """
        return True

    @cached_property
    def contexts(self) -> ContextCache:
        """What this backend keeps between requests (a fitted table, an encoded image), within a bound."""
        return ContextCache()

    def is_out_of_memory(self, error: Exception) -> bool:
        """Whether a call failed for want of memory, so that a smaller batch may go through."""
        names = {cls.__name__ for cls in type(error).__mro__}
        return isinstance(error, MemoryError) or "OutOfMemoryError" in names or "out of memory" in str(error)

    def is_fatal(self, error: Exception) -> bool:
        """Whether the model cannot be used any more after this error and must be loaded anew."""
        if self.is_out_of_memory(error):
            return False
        names = {cls.__name__ for cls in type(error).__mro__}
        return "AcceleratorError" in names or any(words in str(error) for words in _FATAL)

    def free_memory(self) -> None:
        """Give back what an aborted call left allocated; called after memory ran out."""

    def warm_up(self) -> None:
        """Run once what would make the first request slow; called after `load`."""

    def unload(self) -> None:
        """Let go of the weights."""

    @classmethod
    def default_target_ms(cls) -> float | None:
        """`target_ms`; where it is None and `predict` alone is written, that of all loops."""
        one_by_one = cls.batch_predict is ModelBackend.batch_predict
        return LOOP_TARGET_MS if cls.target_ms is None and one_by_one else cls.target_ms

    @classmethod
    def streams(cls) -> bool:
        """Whether this backend has steps of its own to stream."""
        return cls.stream is not ModelBackend.stream


def other_model_type(served: str) -> InvalidRequestError:
    """The error for a request of another contract than a model serves."""
    fault = Fault(code="mismatch", path="/model_type", message=f"This model serves {served}.")
    return InvalidRequestError("The request is for another model type.", errors=[fault])


def respond(request: BaseRequest, response: type[ResponseT], **fields: Any) -> ResponseT:
    """Build the response to `request`: identifiers from the request, the rest from `fields`.

    Raises `pydantic.ValidationError` where the fields break the contract, non-finite numbers included.
    """
    return response(request_id=request.request_id, model_name=request.model_name, **fields)
