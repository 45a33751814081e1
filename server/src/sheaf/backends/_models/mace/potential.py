"""A loaded MACE as a potential: one graph of all structures of a pass, one call of the library's module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from sheaf.backends._families.atoms.neighbors import Pairs
from sheaf.backends._families.atoms.potential import Potential, collect
from sheaf.backends._families.atoms.structures import Properties, Structure


class MACE(Potential):
    """MACE on one device.

    Args:
        model: the library's module, in evaluation mode.
        head: which of its heads speaks; the one named `default` where there are several and none is named.
    """

    def __init__(self, model: Any, *, head: str | None = None) -> None:
        self.cutoff = float(model.r_max)
        numbers: list[int] = model.atomic_numbers.tolist()
        self.elements = frozenset(numbers)
        self._model = model
        self._head = _head_of(model, head)
        parameter = next(model.parameters())
        self._device, self._dtype = parameter.device, parameter.dtype
        self._place = np.zeros(max(numbers) + 1, dtype=np.int64)
        self._place[numbers] = np.arange(len(numbers))

    def evaluate(
        self, structures: Sequence[Structure], pairs: Sequence[Pairs], *, gradient: bool
    ) -> list[Properties]:
        graph = self._join(structures, pairs)
        strained = gradient and any(structure.periodic for structure in structures)
        with torch.set_grad_enabled(gradient):
            out = self._model(graph, compute_force=gradient, compute_stress=strained)
        energies = _float64(out["energy"])
        if not gradient:
            return collect(structures, energies, None, None)
        by_strain = -_float64(out["virials"]) if strained else None
        if by_strain is not None:  # one for all where nothing is bound to anything
            by_strain = np.broadcast_to(by_strain, (len(structures), 3, 3))
        return collect(structures, energies, _float64(out["forces"]), by_strain)

    def _join(self, structures: Sequence[Structure], pairs: Sequence[Pairs]) -> dict[str, torch.Tensor]:
        """What the module takes: each pair as two edges, and cells below one another."""
        sizes = [len(structure) for structure in structures]
        starts = np.cumsum([0, *sizes])
        first = np.concatenate([found.first + at for found, at in zip(pairs, starts, strict=False)])
        second = np.concatenate([found.second + at for found, at in zip(pairs, starts, strict=False)])
        shift = np.concatenate([found.shift for found in pairs])
        cells = np.stack([structure.full_cell() for structure in structures])
        owner = np.repeat(np.arange(len(sizes)), [len(found) for found in pairs])
        across = np.einsum("ni,nij->nj", shift, cells[owner])
        numbers = np.concatenate([structure.numbers for structure in structures])

        def real(values: Any) -> torch.Tensor:
            return torch.as_tensor(values, dtype=self._dtype, device=self._device)

        def whole(values: Any) -> torch.Tensor:
            return torch.as_tensor(values, dtype=torch.int64, device=self._device)

        elements = whole(self._place[numbers])
        return {
            "positions": real(np.concatenate([structure.positions for structure in structures])),
            "node_attrs": torch.nn.functional.one_hot(elements, len(self.elements)).to(self._dtype),
            "edge_index": whole(np.stack([np.r_[first, second], np.r_[second, first]])),
            "shifts": real(np.concatenate([across, -across])),
            "unit_shifts": real(np.concatenate([shift, -shift])),
            "cell": real(cells.reshape(-1, 3)),
            "batch": whole(np.repeat(np.arange(len(sizes)), sizes)),
            "ptr": whole(starts),
            "head": whole(np.full(len(sizes), self._head)),
        }


def _head_of(model: Any, head: str | None) -> int:
    """The index of a head by its name; raises `ValueError` where it is not there, or none is named."""
    heads: list[str] = list(getattr(model, "heads", ["Default"]))
    if head is None:
        named = [name for name in heads if len(heads) == 1 or name.lower() == "default"]
        if not named:
            raise ValueError(f"the model has several heads; name one by head: {', '.join(heads)}")
        head = named[0]
    if head not in heads:
        raise ValueError(f"the model has no head {head!r}; it has {', '.join(heads)}")
    return heads.index(head)


def _float64(values: torch.Tensor) -> Any:
    return values.detach().cpu().double().numpy()
