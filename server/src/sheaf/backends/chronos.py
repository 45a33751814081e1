"""Chronos forecasters: Chronos-Bolt, Chronos-2 and the original Chronos, by what the checkpoint is.

The checkpoint's own configuration names its kind; the modules in `_models.chronos` hold one kind each.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from sheaf.api.time_series import TimeSeriesRequest, TimeSeriesResponse
from sheaf.backends._families.time_series import answer_size
from sheaf.backends._shared.loading import loaded
from sheaf.backends._shared.pretrained import PretrainedBackend
from sheaf.backends.info import BackendInfo, Weights
from sheaf.registry import register_backend
from sheaf_client.contracts.events import ProgressEvent

if TYPE_CHECKING:
    from sheaf.backends._models.chronos.facts import ChronosFacts
    from sheaf.backends._models.chronos.variant import Variant


@register_backend("chronos2", "chronos")
class Chronos2Backend(PretrainedBackend[TimeSeriesRequest, TimeSeriesResponse]):
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
    info: ClassVar[BackendInfo | None] = BackendInfo(
        title="Chronos-2, Chronos-Bolt, Chronos",
        extra="chronos",
        libraries=("torch", "chronos"),
        default_model="amazon/chronos-2",
        memory_mb=480,
        weights=(
            Weights(
                models=("amazon/chronos-*",),
                license="Apache-2.0",
                card="https://huggingface.co/amazon/chronos-2",
            ),
        ),
        papers=("https://arxiv.org/abs/2510.15821", "https://arxiv.org/abs/2403.07815"),
    )

    def __init__(
        self,
        model_id: str | None = None,
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
        super().__init__(
            model_id,
            device=device,
            dtype=dtype,
            revision=revision,
            num_threads=num_threads,
            device_map=device_map,
            torch_dtype=torch_dtype,
        )
        self.num_samples = num_samples
        self.context_length = context_length

    def read(self) -> Variant[Any]:
        from sheaf.backends._models.chronos.loading import load_variant

        variant = load_variant(
            self.model_id,
            device=self.device,
            dtype=self.dtype,
            revision=self.revision,
            context_length=self.context_length,
            num_samples=self.num_samples,
        )
        self.facts = variant.facts
        return variant

    def smallest(self) -> TimeSeriesRequest:
        body = {"model_name": "warm-up", "history": [1.0, 2.0, 3.0], "horizon": 1, "frequency": "1d"}
        return TimeSeriesRequest.model_validate(body)

    def check(self, request: TimeSeriesRequest) -> None:
        self.known.check(request)

    def batch_key(self, request: TimeSeriesRequest) -> Hashable:
        return self.known.batch_key(request)

    def cost(self, request: TimeSeriesRequest) -> float:
        return self.known.cost(request)

    def answer_size(self, request: TimeSeriesRequest) -> int:
        return answer_size(request)

    def deterministic(self, request: TimeSeriesRequest) -> bool:
        """Chronos-Bolt and Chronos-2 draw nothing; the original Chronos draws for every answer."""
        return self.known.deterministic(request)

    def batch_predict(self, requests: Sequence[TimeSeriesRequest]) -> list[TimeSeriesResponse | Exception]:
        """Forecast requests of any mix; those of equal `batch_key` share their passes through the model."""
        return self.variant.predict(requests)

    def stream(self, request: TimeSeriesRequest) -> Iterator[ProgressEvent | TimeSeriesResponse]:
        """Yield an event per block of steps, then the response that `predict` would give."""
        yield from self.variant.stream(request)

    @property
    def known(self) -> ChronosFacts:
        """What is known of the loaded model."""
        facts: ChronosFacts | None = self.facts
        return loaded(facts)

    @property
    def variant(self) -> Variant[Any]:
        """The loaded model."""
        variant: Variant[Any] = loaded(self._loaded)
        return variant
