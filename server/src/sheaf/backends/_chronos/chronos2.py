"""Chronos-2: several targets with covariates per request, quantiles of up to a thousand steps in one pass.

Model: Ansari et al. 2025, "Chronos-2: From Univariate to Universal Forecasting". Requests stand side by
side in one pass as groups of their own and see nothing of one another (no cross-learning).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from math import ceil
from typing import Any

import numpy as np
import torch
from chronos.chronos2 import preprocess  # type: ignore[import-untyped]
from chronos.utils import (  # type: ignore[import-untyped]
    interpolate_quantiles,
    weighted_quantile,
)

from sheaf.api.time_series import TimeSeriesRequest
from sheaf.backends._chronos.variant import QuantileVariant, Run, check_size, pad_left
from sheaf.backends._common import refuse
from sheaf.backends._time_series import history_of
from sheaf_client.protocol import pointer

_library: Any = preprocess

#: Targets and covariates of one request: attention between them takes memory by the square of their count.
MAX_SERIES = 512
#: Series that one pass takes at most, unless one request alone has more.
_MAX_ROWS = 256
#: Levels whose forecasts are appended to the context when a horizon takes more than one pass.
_PATH_LEVELS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]


class Chronos2(QuantileVariant):
    """All variates of a history are targets that inform one another; the one asked for is returned.

    The forecast depends on the number of output patches, so a pass takes requests of equal number.
    """

    def __init__(self, pipeline: Any, context_length: int | None) -> None:
        super().__init__(pipeline, context_length)
        self._model = pipeline.model
        self._patch: int = pipeline.model_output_patch_size
        paths = torch.tensor(_PATH_LEVELS)
        # What a path and a level on it stand for: the share of probability around both.
        masses = torch.outer(_mass(paths), _mass(torch.tensor(self.levels)))
        self._weights = masses.flatten()

    def check(self, request: TimeSeriesRequest) -> None:
        super().check(request)
        past, future = request.past_covariates or {}, request.future_covariates or {}
        width = history_of(request).shape[1] + len(past)
        if width > MAX_SERIES:
            where = "/past_covariates" if past else "/history"
            message = f"At most {MAX_SERIES} variates and covariates together."
            raise refuse(where, message, "too_long")
        for field, covariates in (("past_covariates", past), ("future_covariates", future)):
            for name, values in covariates.items():
                path = pointer((field, name))
                if _is_categorical(values) != _is_categorical(past[name]):
                    raise refuse(path, "Must be of the same kind as in past_covariates.", "mismatch")
                if not _is_categorical(values):
                    check_size(path, values)

    def batch_key(self, request: TimeSeriesRequest) -> Hashable:
        return self._patches(request)

    def cost(self, request: TimeSeriesRequest) -> float:
        history = request.history or [0.0]
        variates = len(history[0]) if isinstance(history[0], list) else 1
        series = variates + len(request.past_covariates or ())
        context = ceil(min(len(history), self.context_length) / self._patch) + 1
        unrolled = 1 + len(_PATH_LEVELS) * (self.blocks(request) - 1)
        return float(series * unrolled * (context + self._patches(request)))

    def run(self, requests: Sequence[TimeSeriesRequest]) -> Run:
        trained: dict[int, torch.Tensor] = {}
        # One event per block is promised for a run of one request, which is one group.
        for group in self._groups(requests):
            steps = self._patches(requests[group[0]]) * self._patch
            prepared = [self._prepare(requests[i], steps) for i in group]
            blocks: list[torch.Tensor] = []
            for block in self._unroll([c for c, _ in prepared], [f for _, f in prepared], steps):
                blocks.append(block)
                yield
            rows = torch.split(torch.cat(blocks, dim=-1), [len(context) for context, _ in prepared])
            for i, row in zip(group, rows, strict=True):
                trained[i] = row[requests[i].target_index, :, : requests[i].horizon]
        return [self.forecast(request, trained[i]) for i, request in enumerate(requests)]

    def interpolate(self, trained: torch.Tensor, levels: list[float]) -> torch.Tensor:
        found: torch.Tensor = interpolate_quantiles(levels, self.levels, trained.T)
        return found.T

    def _patches(self, request: TimeSeriesRequest) -> int:
        return ceil(request.horizon / self._patch)

    def _groups(self, requests: Sequence[TimeSeriesRequest]) -> Iterator[list[int]]:
        """Split into passes: equal output patches, similar context lengths, not too many series."""
        widths = [history_of(request).shape[1] + len(request.past_covariates or ()) for request in requests]
        lengths = [min(len(request.history or ()), self.context_length) for request in requests]
        group: list[int] = []
        for i in sorted(range(len(requests)), key=lambda i: (self._patches(requests[i]), -lengths[i])):
            if group and (
                self._patches(requests[i]) != self._patches(requests[group[0]])
                or sum(widths[j] for j in group) + widths[i] > _MAX_ROWS
                or (len(group) >= 8 and 2 * lengths[i] < lengths[group[0]])
            ):
                yield group
                group = []
            group.append(i)
        if group:
            yield group

    def _prepare(self, request: TimeSeriesRequest, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Context of shape (series, time) and known future of shape (series, steps), targets first.

        The library encodes categories by the target of their own request, so each is prepared alone.
        """
        target = np.ascontiguousarray(history_of(request).T, dtype=np.float32)
        if request.past_covariates:
            task: dict[str, Any] = {
                "target": target,
                "past_covariates": _arrays(request.past_covariates),
                "future_covariates": _arrays(request.future_covariates or {}),
            }
            prepared: Any = _library.from_list_of_dicts([task], prediction_length=request.horizon)[0]
            context, known = prepared["context"], prepared["future_covariates"]
        else:
            context = torch.as_tensor(target)
            known = torch.full((len(target), request.horizon), torch.nan)
        known = torch.nn.functional.pad(known, (0, steps - request.horizon), value=torch.nan)
        return context[:, -self.context_length :], known

    def _unroll(
        self, contexts: list[torch.Tensor], known: list[torch.Tensor], steps: int
    ) -> Iterator[torch.Tensor]:
        """Yield blocks of shape (series, levels, steps of the block) until `steps` are forecast."""
        context, future = pad_left(contexts), torch.cat(known)
        groups = torch.arange(len(contexts)).repeat_interleave(torch.tensor([len(c) for c in contexts]))
        size = min(steps, self.block_length)
        block = self._forward(context, future[:, :size], groups)
        yield block
        paths = len(_PATH_LEVELS)
        if steps > size:
            context, future = context.repeat_interleave(paths, 0), future.repeat_interleave(paths, 0)
            groups = (groups[:, None] * paths + torch.arange(paths)).flatten()
        done = size
        while done < steps:
            # Each path goes on from its own level, except where the future is known.
            guess = interpolate_quantiles(_PATH_LEVELS, self.levels, block.transpose(1, 2)).transpose(1, 2)
            guess = guess.reshape(len(context), -1)
            past = future[:, done - size : done]
            context = torch.cat([context, torch.where(past.isnan(), guess, past)], dim=-1)
            context = context[:, -self.model_context :]
            size = min(steps - done, self.block_length)
            out = self._forward(context, future[:, done : done + size], groups)
            done += size
            samples = out.reshape(-1, paths * out.shape[1], size).transpose(1, 2)
            block = weighted_quantile(self.levels, self._weights, samples).transpose(1, 2)
            yield block

    @torch.inference_mode()
    def _forward(self, context: torch.Tensor, future: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
        device = self._model.device
        out: torch.Tensor = self._model(
            context=context.to(device),
            future_covariates=future.to(device),
            group_ids=groups.to(device),
            num_output_patches=future.shape[-1] // self._patch,
        ).quantile_preds
        return out.to("cpu", torch.float32)


def _mass(levels: torch.Tensor) -> torch.Tensor:
    """Probability around each level, up to halfway to its neighbours; sums to one."""
    bounds = torch.cat([torch.zeros(1), levels, torch.ones(1)])
    mass = (bounds[2:] - bounds[:-2]) / 2
    return mass / mass.sum()


def _is_categorical(values: Sequence[float | str | None]) -> bool:
    return isinstance(values[0], str)


def _arrays(covariates: Any) -> dict[str, np.ndarray[Any, Any]]:
    return {
        name: np.asarray(values, dtype=np.str_ if _is_categorical(values) else np.float32)
        for name, values in covariates.items()
    }
