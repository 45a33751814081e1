"""Pairs of atoms within a cutoff, each once, under periodic boundaries of any cell.

The search is pymatgen's, in C; some tens of microseconds for a cell of tens of atoms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from pymatgen.optimization import neighbors as _neighbors  # type: ignore[import-untyped]

from sheaf.backends._atoms.structures import Floats, Integers, Structure

_library: Any = _neighbors


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of neighbours, each in one of its two directions; an atom may neighbour its own images.

    Attributes:
        first: index of an atom, shape (n_pairs,).
        second: index of its neighbour, shape (n_pairs,).
        shift: whole lattice vectors from the neighbour to the image meant, shape (n_pairs, 3).
        distance: in Å, shape (n_pairs,).
    """

    first: Integers
    second: Integers
    shift: Floats
    distance: Floats

    def __len__(self) -> int:
        return len(self.first)


def find_pairs(structure: Structure, cutoff: float) -> Pairs:
    """All pairs nearer than `cutoff`, in Å."""
    positions = np.ascontiguousarray(structure.positions)
    found = _library.find_points_in_spheres(
        positions,
        positions,
        r=float(cutoff),
        pbc=np.ascontiguousarray(structure.pbc, dtype=np.int64),
        lattice=np.ascontiguousarray(_search_cell(structure)),
        tol=1e-8,
    )
    first, second, shift, distance = (cast("npt.NDArray[Any]", part) for part in found)
    # Of the two directions of a pair the one that goes up; of an atom and its image, the shift that does.
    upward = (shift @ [4e6, 2e3, 1.0]) > 0 if len(shift) else np.zeros(0, dtype=np.bool_)
    once = (first < second) | ((first == second) & upward)
    return Pairs(
        first[once].astype(np.int64), second[once].astype(np.int64), shift[once], distance[once]
    )


def _search_cell(structure: Structure) -> Floats:
    """A cell that holds all atoms along the directions that do not repeat."""
    if not structure.periodic:
        extent = np.ptp(structure.positions, axis=0) + 1.0
        return np.diag(extent)
    return structure.full_cell()


def most_pairs(structure: Structure, cutoff: float) -> float:
    """No fewer than the pairs that `find_pairs` would find, in time linear in the atoms.

    Atoms are counted in boxes as wide as the cutoff, or in one box where the cell is thinner, with as many
    images as reach into the cutoff.
    """
    cell = structure.full_cell()
    inverse = np.linalg.inv(cell)
    heights = 1 / np.linalg.norm(inverse, axis=0)
    scaled = structure.positions @ inverse
    scaled[:, structure.pbc] %= 1.0
    boxes = np.maximum(np.floor(heights / cutoff), 1.0)
    with np.errstate(over="ignore"):
        # Where a direction does not repeat, boxes are as many as there are atoms apart.
        width = np.where(structure.pbc, heights / boxes, cutoff)
        images = np.where(structure.pbc, 2 * np.ceil(cutoff / width) + 1, 3.0)
        place = np.floor(scaled * (heights / width))
        _, counts = np.unique(place, axis=0, return_counts=True)
        return float(len(structure) * counts.max() * images.prod() / 2)
