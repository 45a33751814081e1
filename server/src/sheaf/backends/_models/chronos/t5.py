"""The original Chronos: a T5 that samples tokens of binned values, one sample path at a time.

Model: Ansari et al. 2024, "Chronos: Learning the Language of Time Series". Each request draws from a
generator of its own, and one with a seed takes its passes alone, so its answer is the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.modeling_outputs import BaseModelOutput

from sheaf.api.time_series import TimeSeriesRequest
from sheaf.backends._families.time_series import (
    Forecast,
    one_variate_warnings,
    wants_quantiles,
    wants_samples,
)
from sheaf.backends._models.chronos.facts import T5Facts
from sheaf.backends._models.chronos.variant import Run, Variant, context_of, pad_left
from sheaf.backends._shared.passes import spread_rows

_generation_config: Any = GenerationConfig

#: Sample paths that one pass takes at most: each keeps keys and values over the whole context.
_MAX_ROWS = 256


@dataclass
class _Paths:
    """The sample paths of one request, block by block."""

    context: torch.Tensor
    generator: torch.Generator
    seeded: bool
    count: int
    remaining: int
    blocks: list[torch.Tensor] = field(default_factory=list[torch.Tensor])


class T5(Variant[T5Facts]):
    """The encoder runs once per request; the decoder once per sample path, those of many requests together.

    A request with a seed shares no pass: the last bits of a pass depend on its shape, and one bit that
    turns a token turns all that follow. Its own sample paths fill a pass anyway.
    Beyond one block the median of the paths is appended to the context, as the library does it.
    """

    def __init__(self, pipeline: Any, facts: T5Facts) -> None:
        super().__init__(facts)
        self._model = pipeline.model.model
        self._config = pipeline.model.config
        if self._config.model_type != "seq2seq":
            raise ValueError(f"Chronos models of type {self._config.model_type!r} are not served")
        self._tokenizer = pipeline.tokenizer

    def run(self, requests: Sequence[TimeSeriesRequest]) -> Run:
        states = [
            _Paths(
                context_of(request, self.facts.context_length),
                _generator(request.seed),
                request.seed is not None,
                self.facts.paths(request),
                request.horizon,
            )
            for request in requests
        ]
        while waiting := [state for state in states if state.remaining]:
            for state in waiting:
                if state.seeded:
                    self._next_block([state])
            if sharing := [state for state in waiting if not state.seeded]:
                self._next_block(sharing)
            yield
        return [
            self._finish(request, torch.cat(state.blocks, dim=-1))
            for request, state in zip(requests, states, strict=True)
        ]

    def _finish(self, request: TimeSeriesRequest, samples: torch.Tensor) -> Forecast:
        quantiles = None
        if wants_quantiles(request):
            levels = torch.tensor(request.quantile_levels, dtype=samples.dtype)
            quantiles = torch.quantile(samples, levels, dim=0).numpy()
        return Forecast(
            samples.mean(dim=0).numpy(),
            "mean",
            quantiles,
            samples.numpy() if wants_samples(request) else None,
            (*self.facts.length_warnings(request), *one_variate_warnings(request)),
        )

    @torch.inference_mode()
    def _next_block(self, states: list[_Paths]) -> None:
        """Append one block to each state and its median to the context."""
        contexts = pad_left([state.context[None, -self.facts.model_context :] for state in states])
        tokens, mask, scale = self._tokenizer.context_input_transform(contexts)
        tokens, mask = tokens.to(self._model.device), mask.to(self._model.device)
        encoded = self._model.get_encoder()(input_ids=tokens, attention_mask=mask)[0]
        steps = [min(state.remaining, self.facts.block_length) for state in states]
        draws = [
            torch.rand((length, state.count), generator=state.generator, dtype=torch.float64)
            for state, length in zip(states, steps, strict=True)
        ]
        drawn: list[list[torch.Tensor]] = [[] for _ in states]
        for pieces in spread_rows([state.count for state in states], most=_MAX_ROWS):
            owners = torch.tensor([i for i, rows in pieces for _ in rows], device=tokens.device)
            length = max(steps[i] for i, _ in pieces)
            uniform = torch.cat(
                [_lengthened(draws[i][:, rows.start : rows.stop], length) for i, rows in pieces], 1
            )
            found = self._sample(encoded[owners], mask[owners], uniform.to(tokens.device))
            for (i, _), rows in zip(
                pieces, torch.split(found, [len(rows) for _, rows in pieces]), strict=True
            ):
                drawn[i].append(rows[:, : steps[i]])
        for i, state in enumerate(states):
            block = self._tokenizer.output_transform(torch.cat(drawn[i])[None], scale[i : i + 1])[0]
            state.blocks.append(block.to(torch.float32))
            state.context = torch.cat([state.context, block.median(dim=0).values])
            state.remaining -= steps[i]

    def _sample(self, encoded: torch.Tensor, mask: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
        """Token ids of shape (rows, steps), drawn by `uniform` of shape (steps, rows)."""
        config = self._config
        length = len(uniform)
        sampler = _RowSampler(uniform, config.temperature, config.top_k, config.top_p)
        tokens: torch.Tensor = self._model.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=encoded),
            attention_mask=mask,
            generation_config=_generation_config(
                min_new_tokens=length,
                max_new_tokens=length,
                do_sample=False,
                eos_token_id=config.eos_token_id,
                pad_token_id=config.pad_token_id,
            ),
            logits_processor=LogitsProcessorList([sampler]),
        )
        return tokens[:, 1:].cpu()


class _RowSampler(LogitsProcessor):
    """Draws each row's token with a number of the row's own and leaves the greedy search no other choice.

    The library's sampling draws one batch from one generator, where each row depends on its neighbours.
    """

    def __init__(self, uniform: torch.Tensor, temperature: float, top_k: int, top_p: float) -> None:
        self._uniform: Iterator[torch.Tensor] = iter(uniform)
        self._warpers: list[Any] = []
        # The steps of the library's own sampling, left out where they change nothing.
        if temperature != 1.0:
            self._warpers.append(TemperatureLogitsWarper(temperature))
        if top_k:
            self._warpers.append(TopKLogitsWarper(top_k))
        if top_p < 1.0:
            self._warpers.append(TopPLogitsWarper(top_p))

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        for warper in self._warpers:
            scores = warper(input_ids, scores)
        # Double precision, or the sum over a large vocabulary moves the borders between tokens.
        shares = torch.softmax(scores, dim=-1, dtype=torch.float32).double().cumsum(dim=-1)
        drawn = next(self._uniform) * shares[:, -1]
        token = torch.searchsorted(shares, drawn[:, None], right=True).clamp_(max=scores.shape[-1] - 1)
        return torch.full_like(scores, -torch.inf).scatter_(1, token, 0.0)


def _generator(seed: int | None) -> torch.Generator:
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    return generator


def _lengthened(uniform: torch.Tensor, steps: int) -> torch.Tensor:
    """Further rows for a request that runs beside a longer one; what they draw is cut off."""
    return torch.nn.functional.pad(uniform, (0, 0, 0, steps - len(uniform)))
