"""Chronos forecasters: Chronos-Bolt, Chronos-2 and the original Chronos, by what the checkpoint is.

The checkpoint's own configuration names its kind; the modules in `_models.chronos` hold one kind each.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from sheaf.api.time_series import TimeSeriesRequest, TimeSeriesResponse
from sheaf.backends._families.time_series import answer_size
from sheaf.backends._shared.refusals import missing_library, one_of
from sheaf.backends.base import ModelBackend
from sheaf.registry import register_backend
from sheaf_client.contracts.events import ProgressEvent

if TYPE_CHECKING:
    from sheaf.backends._models.chronos.variant import Variant


@register_backend("chronos2", "chronos")
class Chronos2Backend(ModelBackend[TimeSeriesRequest, TimeSeriesResponse]):
    """Forecasts equal to the library's own direct call for each request alone, whatever shares the batch.

    Args:
        model_id: hub id (`amazon/chronos-2`, `amazon/chronos-bolt-small`, `amazon/chronos-t5-small` …) or
            the folder of a checkpoint in safetensors.
        device: `cpu`, `cuda`, `cuda:1` …; `device_map` is the older spelling.
        dtype: `float32`, `bfloat16`, `float16`, or `auto` for that of the checkpoint; `torch_dtype` is the
            older spelling.
        revision: branch, tag or commit on the hub.
        num_samples: paths that the sampling model draws for requests that do not say how many.
        context_length: steps of history to read, when fewer than the model can.
        num_threads: torch threads. They belong to the whole process, so nothing is set unless asked for.
    """

    model_type: ClassVar[str] = "time_series"

    def __init__(
        self,
        model_id: str = "amazon/chronos-2",
        device: str | None = None,
        dtype: Any = None,
        *,
        revision: str | None = None,
        num_samples: int | None = None,
        context_length: int | None = None,
        num_threads: int | None = None,
        device_map: str | None = None,
        torch_dtype: Any = None,
    ) -> None:
        self.model_id = str(model_id)
        self.device = one_of("device", device, "device_map", device_map, "cpu")
        self.dtype = one_of("dtype", dtype, "torch_dtype", torch_dtype, "float32")
        self.revision = revision
        self.num_samples = num_samples
        self.context_length = context_length
        self.num_threads = num_threads
        self._variant: Variant | None = None

    def load(self) -> None:
        """Load the checkpoint.

        Raises `ModuleNotFoundError` where the library is missing, `OSError` where the checkpoint is, and
        `ValueError` where it is no Chronos model or lacks weights.
        """
        try:
            from sheaf.backends._models.chronos.loading import load_variant
        except ModuleNotFoundError as error:
            raise missing_library("chronos2", "chronos", error) from error
        if self.num_threads is not None:
            import torch

            torch.set_num_threads(self.num_threads)
        self._variant = load_variant(
            self.model_id,
            device=self.device,
            dtype=self.dtype,
            revision=self.revision,
            context_length=self.context_length,
            num_samples=self.num_samples,
        )

    def unload(self) -> None:
        self._variant = None

    def warm_up(self) -> None:
        body = {"model_name": "warm-up", "history": [1.0, 2.0, 3.0], "horizon": 1, "frequency": "1d"}
        self.predict(TimeSeriesRequest.model_validate(body))

    def check(self, request: TimeSeriesRequest) -> None:
        self._loaded.check(request)

    def batch_key(self, request: TimeSeriesRequest) -> Hashable:
        return self._loaded.batch_key(request)

    def cost(self, request: TimeSeriesRequest) -> float:
        return self._loaded.cost(request)

    def answer_size(self, request: TimeSeriesRequest) -> int:
        return answer_size(request)

    def deterministic(self, request: TimeSeriesRequest) -> bool:
        """Chronos-Bolt and Chronos-2 draw nothing; the original Chronos draws for every answer."""
        return self._loaded.deterministic(request)

    def batch_predict(self, requests: Sequence[TimeSeriesRequest]) -> list[TimeSeriesResponse | Exception]:
        """Forecast requests of any mix; those of equal `batch_key` share their passes through the model.

        A request that the model cannot serve gets its `InvalidRequestError` in place.
        """
        return self._loaded.predict(requests)

    def stream(self, request: TimeSeriesRequest) -> Iterator[ProgressEvent | TimeSeriesResponse]:
        """Yield an event per block of steps, then the response that `predict` would give."""
        yield from self._loaded.stream(request)

    @property
    def _loaded(self) -> Variant:
        if self._variant is None:
            raise RuntimeError("load() has not been called")
        return self._variant
