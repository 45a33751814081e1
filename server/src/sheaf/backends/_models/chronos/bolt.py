"""Chronos-Bolt: patches in, nine quantiles of the next block of steps out, further blocks by unrolling.

Model: Ansari et al. 2024, "Chronos: Learning the Language of Time Series", the `chronos-bolt-*` checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from sheaf.api.time_series import TimeSeriesRequest
from sheaf.backends._families.time_series import Forecast, one_variate_warnings
from sheaf.backends._models.chronos.facts import BoltFacts
from sheaf.backends._models.chronos.variant import QuantileVariant, Run, context_of, pad_left
from sheaf.backends._shared.passes import cut_by_rows

#: Rows that one forward pass takes at most; more gain nothing and hold more memory.
_MAX_ROWS = 144
#: From here on a pass is full enough to leave much shorter contexts to the next one.
_FULL_ROWS = 8


class Bolt(QuantileVariant[BoltFacts]):
    """Each block is one pass for the rows that still need it; rows of many requests share the passes.

    Beyond the first block every series becomes one path per trained level, and the paths' quantiles are
    reduced to the trained levels again: the library's own way, which costs nine times the first block.
    """

    def __init__(self, pipeline: Any, facts: BoltFacts) -> None:
        super().__init__(facts)
        self._model = pipeline.model

    def run(self, requests: Sequence[TimeSeriesRequest]) -> Run:
        contexts = [context_of(request, self.facts.context_length)[None] for request in requests]
        found = self._first_block(contexts)
        predictions = [[block] for block in found]
        yield
        done = 1
        while waiting := [i for i, request in enumerate(requests) if self.facts.blocks(request) > done]:
            for i in waiting:
                paths = contexts[i].expand(len(self.facts.levels), -1)
                contexts[i] = torch.cat([paths, predictions[i][-1]], dim=-1)[:, -self.facts.model_context :]
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
        levels = torch.tensor(self.facts.levels)
        paths = [block.reshape(-1, block.shape[-1]) for block in self._forward(contexts)]
        return list(torch.quantile(torch.stack(paths), levels, dim=1).transpose(0, 1))

    def _forward(self, contexts: list[torch.Tensor]) -> list[torch.Tensor]:
        """Blocks of shape (rows, levels, steps) for contexts of shape (rows, time), in their order."""
        blocks: dict[int, torch.Tensor] = {}
        rows, lengths = zip(*(context.shape for context in contexts), strict=True)
        for group in cut_by_rows(rows, lengths, most=_MAX_ROWS, full=_FULL_ROWS):
            batch = pad_left([contexts[i] for i in group]).to(self._model.device)
            out = self._model(context=batch).quantile_preds.to("cpu", torch.float32)
            blocks.update(zip(group, torch.split(out, [len(contexts[i]) for i in group]), strict=True))
        return [blocks[i] for i in range(len(contexts))]
