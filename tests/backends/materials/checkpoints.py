"""Tiny MACE models in the library's own format, with weights large enough that atoms feel one another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


def make_mace(path: str | Path, *, seed: int = 0, channels: int = 8, **settings: Any) -> Path:
    """A model of two layers for elements 1 to 89, pickled whole to a file, as the library's training does."""
    import torch

    from sheaf.backends._models.mace.library import mace

    modules, o3 = mace("mace.modules"), mace("e3nn.o3")
    numbers = list(range(1, 90))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = modules.ScaleShiftMACE(
            **{
                "r_max": 4.5,
                "num_bessel": 8,
                "num_polynomial_cutoff": 5,
                "max_ell": 2,
                "interaction_cls": modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
                "interaction_cls_first": modules.interaction_classes["RealAgnosticInteractionBlock"],
                "num_interactions": 2,
                "num_elements": len(numbers),
                "hidden_irreps": o3.Irreps(f"{channels}x0e + {channels}x1o"),
                "MLP_irreps": o3.Irreps("8x0e"),
                "atomic_energies": np.linspace(-1, -3, len(numbers)),
                "avg_num_neighbors": 8.0,
                "atomic_numbers": numbers,
                "correlation": 2,
                "gate": torch.nn.functional.silu,
                "radial_type": "bessel",
                "radial_MLP": [16, 16],
                "atomic_inter_scale": 400.0,
                "atomic_inter_shift": 0.1,
                **settings,
            }
        )
    torch.save(model, path)
    return Path(path)
