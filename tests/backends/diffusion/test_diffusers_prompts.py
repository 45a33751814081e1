"""Prompts that are longer than the text encoders read: the answer says so, whatever is logged."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import diffusers
import pytest
import transformers

from tests.backends.diffusion.diffusion_cases import TEXT_TOKENS, draw
from tests.backends.diffusion.test_diffusers_served import spec_of

pytestmark = pytest.mark.torch

#: Beyond the tokens of T5 here, beyond those of CLIP, and within both.
LONG, LONGER, SHORT = (" ".join(["a cat"] * count) for count in (TEXT_TOKENS, 90, 1))


@pytest.fixture(scope="module", params=["flux", "sdxl"])
def backend(request: pytest.FixtureRequest, diffusion_checkpoints: dict[str, str]) -> Any:
    backend: Any = spec_of(request.param, diffusion_checkpoints).make_backend()
    backend.load()
    return backend


@pytest.fixture(params=["usual", "disabled", "errors alone"])
def _levels(request: pytest.FixtureRequest) -> Iterator[None]:
    loggings: list[Any] = [diffusers.utils.logging, transformers.utils.logging]
    before = [found.get_verbosity() for found in loggings]
    if request.param == "disabled":
        logging.disable(logging.CRITICAL)
    elif request.param == "errors alone":
        for found in loggings:
            found.set_verbosity_error()
    yield
    logging.disable(logging.NOTSET)
    for found, level in zip(loggings, before, strict=True):
        found.set_verbosity(level)


def told(backend: Any, prompt: str, **fields: Any) -> list[str]:
    """The warnings of an answer about texts that were cut off."""
    warnings = backend.predict(draw(prompt, num_inference_steps=1, **fields)).metadata.warnings
    return [warning for warning in warnings if "truncated" in warning]


@pytest.mark.usefixtures("_levels")
def test_what_is_not_read_of_a_prompt_is_told_at_every_log_level(backend: Any) -> None:
    clip = [warning for warning in told(backend, prompt=LONGER) if "CLIP" in warning]
    assert len(clip) == 1
    tokens = backend.pipeline.tokenizer(LONGER).input_ids
    rest = backend.pipeline.tokenizer.decode(tokens[76:-1])
    assert clip[0].startswith("prompt was truncated: CLIP reads 77 tokens of it, and not: ")
    assert clip[0].split(": ")[-1].removesuffix(" …") == rest[:200]
    assert told(backend, prompt=SHORT) == []


def test_each_encoder_has_a_limit_of_its_own(backend: Any) -> None:
    second = backend.pipeline.tokenizer_2
    limits = {"CLIP": 77, "T5": TEXT_TOKENS}
    wanted: set[str] = set()
    for tokenizer in (backend.pipeline.tokenizer, second):
        name = type(tokenizer).__name__.partition("Tokenizer")[0]
        tokens = tokenizer(LONG).input_ids
        if len(tokens) > limits[name]:
            rest = tokenizer.decode(tokens[limits[name] - 1 : -1])[:200]
            more = f"{name} reads {limits[name]} tokens of it, and not: {rest}"
            wanted.add(f"prompt was truncated: {more}")
    assert {warning.removesuffix(" …") for warning in told(backend, prompt=LONG)} == wanted
    assert type(second).__name__.startswith("CLIP") or any("T5" in text for text in wanted)


def test_a_negative_prompt_that_is_used_is_told_of_too(backend: Any) -> None:
    fields = {"prompt": SHORT, "negative_prompt": LONGER}
    assert all(w.startswith("negative_prompt was") for w in told(backend, **fields, guidance_scale=3.0))
    assert told(backend, **fields, guidance_scale=3.0) != []
    assert told(backend, **fields, guidance_scale=1.0) == []
