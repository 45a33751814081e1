"""Encodes a request's prompts with its adapters, and tells what of them the text encoders do not read.

That is counted in tokens. The library only logs it, which a log level takes away, says nothing of negative
prompts, and of a second encoder's text it names another part than is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any

from sheaf.backends._families.diffusers.quiet import quiet
from sheaf.backends._families.diffusers.seams import AdapterSeam
from sheaf.lora import ActiveAdapters

#: What the libraries' models and tokenizers log while they run; it is about themselves.
CHATTER = ("diffusers.models.modeling_utils", "transformers.tokenization_utils_base")
#: Most characters of what is not read that are told.
_TOLD = 200


def encoding(
    pipeline: Any,
    adapters: AdapterSeam,
    active: ActiveAdapters,
    texts: Mapping[str, str],
    warnings: list[str],
) -> Callable[..., Any]:
    """The pipeline's `encode_prompt`, with the adapters; `warnings` gets what is not read of the texts."""
    encode = pipeline.encode_prompt

    def encode_prompt(*args: Any, **kwargs: Any) -> Any:
        with adapters.text(active), quiet(encode.__func__.__module__, *CHATTER):
            for warning in _truncations(pipeline, texts, kwargs.get("max_sequence_length")):
                if warning not in warnings:
                    warnings.append(warning)
            return encode(*args, **kwargs)

    return encode_prompt


def _truncations(pipeline: Any, texts: Mapping[str, str], second_limit: int | None) -> Generator[str]:
    """A sentence for each text and kind of tokenizer that reads only its beginning."""
    first, second = pipeline.tokenizer, pipeline.tokenizer_2
    limits = (first, None), (second, second_limit)
    for tokenizer, given in limits:
        if tokenizer is None:
            continue
        limit = given or tokenizer.model_max_length
        for field, text in texts.items():
            tokens = tokenizer(text).input_ids
            if len(tokens) > limit:
                # The last place is that of the mark of the end.
                rest = tokenizer.decode(tokens[limit - 1 : -1], skip_special_tokens=True)
                name = type(tokenizer).__name__.partition("Tokenizer")[0]
                told = rest if len(rest) <= _TOLD else f"{rest[:_TOLD]} …"
                yield f"{field} was truncated: {name} reads {limit} tokens of it, and not: {told}"
