"""Chronos-2: several targets with covariates per request, quantiles of up to a thousand steps in one pass.

Model: Ansari et al. 2025, "Chronos-2: From Univariate to Universal Forecasting". Requests stand side by
side in one pass as groups of their own and see nothing of one another (no cross-learning).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from chronos.chronos2 import preprocess  # type: ignore[import-untyped]
from chronos.utils import (  # type: ignore[import-untyped]
    interpolate_quantiles,
    weighted_quantile,
)

from sheaf.api.time_series import TimeSeriesRequest
from sheaf.backends._families.time_series import history_of
from sheaf.backends._models.chronos.facts import PATH_LEVELS, Chronos2Facts, is_categorical
from sheaf.backends._models.chronos.variant import QuantileVariant, Run, pad_left
from sheaf.backends._shared.passes import cut_by_rows

_library: Any = preprocess

#: Series that one pass takes at most, unless one request alone has more.
_MAX_ROWS = 256
#: From here on a pass is full enough to leave much shorter contexts to the next one.
_FULL_ROWS = 8
_PATHS = list(PATH_LEVELS)


class Chronos2(QuantileVariant[Chronos2Facts]):
    """All variates of a history are targets that inform one another; the one asked for is returned.

    The forecast depends on the number of output patches, so a pass takes requests of equal number.
    """

    def __init__(self, pipeline: Any, facts: Chronos2Facts) -> None:
        super().__init__(facts)
        self._model = pipeline.model
        self._levels = list(facts.levels)
        paths = torch.tensor(PATH_LEVELS)
        # What a path and a level on it stand for: the share of probability around both.
        masses = torch.outer(_mass(paths), _mass(torch.tensor(self._levels)))
        self._weights = masses.flatten()

    def run(self, requests: Sequence[TimeSeriesRequest]) -> Run:
        trained: dict[int, torch.Tensor] = {}
        # One event per block is promised for a run of one request, which is one group.
        for group in self._groups(requests):
            steps = self.facts.patches(requests[group[0]]) * self.facts.patch
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
        found: torch.Tensor = interpolate_quantiles(levels, self._levels, trained.T)
        return found.T

    def _groups(self, requests: Sequence[TimeSeriesRequest]) -> Iterator[list[int]]:
        """Split into passes: equal output patches, similar context lengths, not too many series."""
        return cut_by_rows(
            [history_of(request).shape[1] + len(request.past_covariates or ()) for request in requests],
            [self.facts.read_steps(request) for request in requests],
            most=_MAX_ROWS,
            full=_FULL_ROWS,
            kinds=[self.facts.patches(request) for request in requests],
        )

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
        return context[:, -self.facts.context_length :], known

    def _unroll(
        self, contexts: list[torch.Tensor], known: list[torch.Tensor], steps: int
    ) -> Iterator[torch.Tensor]:
        """Yield blocks of shape (series, levels, steps of the block) until `steps` are forecast."""
        context, future = pad_left(contexts), torch.cat(known)
        groups = torch.arange(len(contexts)).repeat_interleave(torch.tensor([len(c) for c in contexts]))
        size = min(steps, self.facts.block_length)
        block = self._forward(context, future[:, :size], groups)
        yield block
        paths = len(_PATHS)
        if steps > size:
            context, future = context.repeat_interleave(paths, 0), future.repeat_interleave(paths, 0)
            groups = (groups[:, None] * paths + torch.arange(paths)).flatten()
        done = size
        while done < steps:
            # Each path goes on from its own level, except where the future is known.
            guess = interpolate_quantiles(_PATHS, self._levels, block.transpose(1, 2)).transpose(1, 2)
            guess = guess.reshape(len(context), -1)
            past = future[:, done - size : done]
            context = torch.cat([context, torch.where(past.isnan(), guess, past)], dim=-1)
            context = context[:, -self.facts.model_context :]
            size = min(steps - done, self.facts.block_length)
            out = self._forward(context, future[:, done : done + size], groups)
            done += size
            samples = out.reshape(-1, paths * out.shape[1], size).transpose(1, 2)
            block = weighted_quantile(self._levels, self._weights, samples).transpose(1, 2)
            yield block

    @torch.inference_mode()
    def _forward(self, context: torch.Tensor, future: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
        device = self._model.device
        out: torch.Tensor = self._model(
            context=context.to(device),
            future_covariates=future.to(device),
            group_ids=groups.to(device),
            num_output_patches=future.shape[-1] // self.facts.patch,
        ).quantile_preds
        return out.to("cpu", torch.float32)


def _mass(levels: torch.Tensor) -> torch.Tensor:
    """Probability around each level, up to halfway to its neighbours; sums to one."""
    bounds = torch.cat([torch.zeros(1), levels, torch.ones(1)])
    mass = (bounds[2:] - bounds[:-2]) / 2
    return mass / mass.sum()


def _arrays(covariates: Any) -> dict[str, np.ndarray[Any, Any]]:
    return {
        name: np.asarray(values, dtype=np.str_ if is_categorical(values) else np.float32)
        for name, values in covariates.items()
    }
