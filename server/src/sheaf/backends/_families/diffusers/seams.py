"""Where LoRA adapters come into the loops of diffusers: around a prompt's encoding, and around a forward."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from sheaf.lora import ActiveAdapters


class AdapterSeam(Protocol):
    """Applies adapters for as long as a context is open; outside of it the model is as it was loaded."""

    def held(self, active: ActiveAdapters) -> AbstractContextManager[object]:
        """Around all of one request's run: these adapters are there, or an error says why not."""
        ...

    def rows(self, active: Sequence[ActiveAdapters]) -> AbstractContextManager[object]:
        """Around one forward of the denoiser whose row i is computed with the adapters `active[i]`."""
        ...

    def text(self, active: ActiveAdapters) -> AbstractContextManager[object]:
        """Around the encoding of one request's prompts."""
        ...


class NoAdapters:
    """The seam of a model without adapters."""

    def held(self, active: ActiveAdapters) -> AbstractContextManager[object]:  # noqa: ARG002
        return nullcontext()

    def rows(self, active: Sequence[ActiveAdapters]) -> AbstractContextManager[object]:  # noqa: ARG002
        return nullcontext()

    def text(self, active: ActiveAdapters) -> AbstractContextManager[object]:  # noqa: ARG002
        return nullcontext()
