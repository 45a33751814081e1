"""The dispersion that density functionals lack, D3 with Becke-Johnson damping, added to what MACE says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from ase import Atoms
from ase.units import Bohr
from torch_dftd import torch_dftd3_calculator as _calculator

from sheaf.backends._families.atoms.neighbors import Pairs
from sheaf.backends._families.atoms.potential import Potential
from sheaf.backends._families.atoms.structures import Properties, Structure

_library: Any = _calculator

#: The elements that D3 has coefficients for.
_ELEMENTS = frozenset(range(1, 95))


class Dispersed(Potential):
    """A potential and D3, for the functional PBE and up to 40 Bohr, as `mace_mp` sets them."""

    def __init__(self, potential: Potential, *, device: str, dtype: torch.dtype) -> None:
        self.cutoff = potential.cutoff
        self.elements = potential.elements & _ELEMENTS
        self._potential = potential
        self._d3 = _library.TorchDFTD3Calculator(
            device=device, damping="bj", dtype=dtype, xc="pbe", cutoff=40.0 * Bohr
        )

    def evaluate(
        self, structures: Sequence[Structure], pairs: Sequence[Pairs], *, gradient: bool
    ) -> list[Properties]:
        found = self._potential.evaluate(structures, pairs, gradient=gradient)
        return [
            self._add(structure, properties, gradient=gradient)
            for structure, properties in zip(structures, found, strict=True)
        ]

    def _add(self, structure: Structure, found: Properties, *, gradient: bool) -> Properties:
        cell = structure.full_cell() if structure.periodic else None
        atoms = Atoms(structure.numbers, structure.positions, cell=cell, pbc=structure.pbc)
        self._d3.calculate(atoms, ["energy", "forces"] if gradient else ["energy"])
        added: dict[str, Any] = self._d3.results
        return replace(
            found,
            energy=found.energy + float(added["energy"]),
            forces=None if found.forces is None else found.forces + added["forces"],
            stress=None if found.stress is None else found.stress + added["stress"],
        )
