"""What must be known of a family of models that its pipelines do not tell; imports no library."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Family:
    """The pipelines of a family, by their names in diffusers.

    Attributes:
        name: what its backend is called.
        text2img, img2img, inpaint: names of the pipelines' classes.
        denoiser: the component that the pipelines call once or twice a step.
        multiple: sides of images are multiples of this many pixels.
        default_dtype: the dtype its weights are published in.
        shared: arguments of the denoiser without a batch dimension.
        settings: the pipelines' own settings that must not depend on what else is installed.
    """

    name: str
    text2img: str
    img2img: str
    inpaint: str
    denoiser: str
    multiple: int
    default_dtype: str
    shared: frozenset[str] = frozenset()
    settings: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Guidance:
    """How a request is guided, in the terms of its pipeline.

    Attributes:
        arguments: keywords of the pipeline's call.
        calls: calls of the denoiser in a step.
        rows: rows of each of those calls, per image.
        warnings: one sentence each, for `metadata.warnings`.
    """

    arguments: dict[str, Any]
    calls: int = 1
    rows: int = 1
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DenoiserFacts:
    """What is known of a loaded denoiser.

    Attributes:
        embeds_guidance: whether it takes guidance as a number, rather than a second pass without the prompt.
        max_guidance: the largest guidance that it can embed; None where that has no bound.
        dtype: of its weights, such as `bfloat16`.
    """

    embeds_guidance: bool
    max_guidance: float | None
    dtype: str
