"""Chronos-Bolt: patches in, nine quantiles of the next block of steps out, further blocks by unrolling.

Model: Ansari et al. 2024, "Chronos: Learning the Language of Time Series", the `chronos-bolt-*` checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil
from typing import Any

import torch

from sheaf.api.time_series import TimeSeriesRequest
from sheaf.backends._families.time_series import Forecast, check_no_covariates, one_variate_warnings
from sheaf.backends._models.chronos.variant import QuantileVariant, Run, context_of, pad_left

#: Rows that one forward pass takes at most; more gain nothing and hold more memory.
_MAX_ROWS = 144
#: From here on a pass is full enough to leave much shorter contexts to the next one.
_FULL_ROWS = 8


class Bolt(QuantileVariant):
    """Each block is one pass for the rows that still need it; rows of many requests share the passes.

    Beyond the first block every series becomes one path per trained level, and the paths' quantiles are
    reduced to the trained levels again: the library's own way, which costs nine times the first block.
    """

    def __init__(self, pipeline: Any, context_length: int | None) -> None:
        super().__init__(pipeline, context_length)
        self._model = pipeline.model
        self._patch: int = self._model.chronos_config.input_patch_size

    def check(self, request: TimeSeriesRequest) -> None:
        super().check(request)
        check_no_covariates(request, "past_covariates", "future_covariates")

    def cost(self, request: TimeSeriesRequest) -> float:
        patches = ceil(min(len(request.history or ()), self.context_length) / self._patch) + 1
        return float(patches * (1 + len(self.levels) * (self.blocks(request) - 1)))

    def run(self, requests: Sequence[TimeSeriesRequest]) -> Run:
        contexts = [context_of(request, self.context_length)[None] for request in requests]
        found = self._first_block(contexts)
        predictions = [[block] for block in found]
        yield
        done = 1
        while waiting := [i for i, request in enumerate(requests) if self.blocks(request) > done]:
            for i in waiting:
                paths = contexts[i].expand(len(self.levels), -1)
                contexts[i] = torch.cat([paths, predictions[i][-1]], dim=-1)[:, -self.model_context :]
            for i, block in zip(waiting, self._next_block([contexts[i] for i in waiting]), strict=True):
                predictions[i].append(block)
            done += 1
            yield
        return [
            self._finish(request, torch.cat(blocks, dim=-1))
            for request, blocks in zip(requests, predictions, strict=True)
        ]

    def interpolate(self, trained: torch.Tensor, levels: list[float]) -> torch.Tensor:
        # The library takes the trained levels for an even grid with the outermost ones doubled at 0 and 1.
        grid = torch.cat([trained[:1], trained, trained[-1:]])
        return torch.quantile(grid, torch.tensor(levels, dtype=grid.dtype), dim=0)

    def _finish(self, request: TimeSeriesRequest, trained: torch.Tensor) -> Forecast:
        return self.forecast(request, trained[:, : request.horizon], one_variate_warnings(request))

    @torch.inference_mode()
    def _first_block(self, contexts: list[torch.Tensor]) -> list[torch.Tensor]:
        return [block[0] for block in self._forward(contexts)]

    @torch.inference_mode()
    def _next_block(self, contexts: list[torch.Tensor]) -> list[torch.Tensor]:
        levels = torch.tensor(self.levels)
        paths = [block.reshape(-1, block.shape[-1]) for block in self._forward(contexts)]
        return list(torch.quantile(torch.stack(paths), levels, dim=1).transpose(0, 1))

    def _forward(self, contexts: list[torch.Tensor]) -> list[torch.Tensor]:
        """Blocks of shape (rows, levels, steps) for contexts of shape (rows, time), in their order."""
        blocks: dict[int, torch.Tensor] = {}
        for group in _groups(contexts):
            batch = pad_left([contexts[i] for i in group]).to(self._model.device)
            out = self._model(context=batch).quantile_preds.to("cpu", torch.float32)
            blocks.update(zip(group, torch.split(out, [len(contexts[i]) for i in group]), strict=True))
        return [blocks[i] for i in range(len(contexts))]


def _groups(contexts: list[torch.Tensor]) -> Iterator[list[int]]:
    """Split into passes of similar lengths: padding to the longest of all can cost more than it gains."""
    group: list[int] = []
    rows = width = 0
    for i in sorted(range(len(contexts)), key=lambda i: -contexts[i].shape[-1]):
        more, length = contexts[i].shape
        if group and (rows + more > _MAX_ROWS or (rows >= _FULL_ROWS and 2 * length < width)):
            yield group
            group, rows = [], 0
        if not group:
            width = length
        group.append(i)
        rows += more
    yield group
