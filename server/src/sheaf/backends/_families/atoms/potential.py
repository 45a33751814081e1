"""The surface of the potentials: structures in, energies, forces and stress out, many in one pass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from sheaf.backends._families.atoms.neighbors import Pairs
from sheaf.backends._families.atoms.structures import Floats, PotentialFacts, Properties, Structure, voigt


class Potential(ABC):
    """A loaded model.

    Attributes:
        cutoff: up to where atoms see one another, in Å.
        elements: atomic numbers that the model knows.
    """

    cutoff: float
    elements: frozenset[int]

    @property
    def facts(self) -> PotentialFacts:
        """What is known of it, as plain data."""
        return PotentialFacts(self.cutoff, self.elements)

    @abstractmethod
    def evaluate(
        self, structures: Sequence[Structure], pairs: Sequence[Pairs], *, gradient: bool
    ) -> list[Properties]:
        """Evaluate structures and their neighbours in one pass of the network.

        Without `gradient` the energies alone; with it the forces, and the stress where a volume is.
        """


def collect(
    structures: Sequence[Structure],
    energies: Floats,
    forces: Floats | None,
    strain_gradient: Floats | None,
    warnings: Sequence[tuple[str, ...]] | None = None,
) -> list[Properties]:
    """What a pass gave, structure by structure.

    Args:
        energies: shape (n_structures,), in eV.
        forces: shape (atoms of all structures, 3), in eV/Å.
        strain_gradient: derivative of each energy by the strain, shape (n_structures, 3, 3), in eV.
        warnings: of each structure.
    """
    starts = np.cumsum([len(structure) for structure in structures])[:-1]
    parts = [None] * len(structures) if forces is None else np.split(forces, starts)
    found: list[Properties] = []
    for i, structure in enumerate(structures):
        stress = None
        if strain_gradient is not None and structure.periodic and structure.volume:
            stress = voigt(strain_gradient[i]) / structure.volume
        said = () if warnings is None else warnings[i]
        found.append(Properties(float(energies[i]), parts[i], stress, said))
    return found
