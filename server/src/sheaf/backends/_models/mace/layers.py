"""The layers of MACE that take nearly all of its time, with the same sums in a cheaper order."""

from __future__ import annotations

from typing import Any

from sheaf.backends._models.mace.edges import Convolution
from sheaf.backends._models.mace.elements import ElementLinear, SymmetricContraction


def lighten(model: Any) -> Any:
    """Replace the layers of the library's module in place, where they are of the common kind."""
    like = next(model.parameters())
    for interaction in model.interactions:
        if ElementLinear.fits(getattr(interaction, "skip_tp", None)):
            interaction.skip_tp = ElementLinear(interaction.skip_tp)
        if not hasattr(interaction, "conv_fusion") and Convolution.fits(interaction.conv_tp):
            interaction.conv_tp = Convolution(interaction.conv_tp, like)
            interaction.conv_fusion = True  # the library's word for one that sums over the edges itself
    for block in model.products:
        if SymmetricContraction.fits(block.symmetric_contractions):
            block.symmetric_contractions = SymmetricContraction(block.symmetric_contractions)
    return model
