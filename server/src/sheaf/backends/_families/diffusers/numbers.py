"""Numbers of requests that a model multiplies with until nothing can be drawn: refused with their place."""

from __future__ import annotations

from typing import Any, TypeAlias

from sheaf.api.diffusion import DiffusionRequest
from sheaf.api.multimodal_generation import MultimodalGenerationRequest
from sheaf.backends._shared.refusals import check_finite, refuse

Request: TypeAlias = DiffusionRequest | MultimodalGenerationRequest

#: Most that an adapter's change is multiplied by, far beyond what still draws pictures.
MAX_WEIGHT = 1000
#: Guidance up to which models are used: what overflows with less is no fault of it.
USUAL_GUIDANCE = 20


def check_weights(request: Request) -> None:
    """Refuse weights of adapters with which no model draws anything."""
    for index, weight in enumerate(request.adapter_weights or ()):
        if abs(weight) > MAX_WEIGHT:
            message = f"Weights are from -{MAX_WEIGHT} to {MAX_WEIGHT}; 1 is as trained."
            raise refuse(f"/adapter_weights/{index}", message, "out_of_range")


def check_drawn(request: Request, drawn: Any) -> None:
    """Refuse a request whose own numbers overflowed the model; `drawn` is an array of pixels or latents.

    Where nothing in the request is out of the common, what is not finite is left to be told as the model's.
    """
    if request.adapter_weights:
        message = "With these weights the model draws no pixels that are numbers."
        check_finite("/adapter_weights", message, drawn, code="out_of_range")
    if request.guidance_scale > USUAL_GUIDANCE:
        message = f"With this guidance the model draws no pixels that are numbers; try {USUAL_GUIDANCE}."
        check_finite("/guidance_scale", message, drawn, code="out_of_range")
