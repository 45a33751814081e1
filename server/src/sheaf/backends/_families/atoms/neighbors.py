"""Pairs of atoms within a cutoff, each once, under periodic boundaries of any cell.

The search is pymatgen's, in C; some tens of microseconds for a cell of tens of atoms.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from pymatgen.optimization import neighbors as _neighbors
from scipy.spatial import KDTree  # type: ignore[import-untyped]

from sheaf.backends._families.atoms.structures import Floats, Integers, Structure

_library: Any = _neighbors
_KDTree: Any = KDTree

#: First atom, second atom, shift and distance, of both directions of each pair.
_Found = tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]

#: Boxes of space, as wide as the cutoff, that are searched one by one: some megabytes.
_MOST_BOXES = 10_000


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
    """All pairs nearer than `cutoff`, in Å; positions are finite and, where the structure repeats, near its
    cell: the search takes time with the cells between.
    """
    cell = structure.full_cell()
    # The search in C keeps every box of the space around the atoms, empty or not; cells may be askew.
    extent: Floats = np.ptp(structure.positions, axis=0)
    boxes = float((extent / cutoff + 3).prod())
    search = _search_boxes if boxes < _MOST_BOXES + 10 * len(structure) else _search_trees
    first, second, shift, distance = search(structure, cell, cutoff)
    # Of the two directions of a pair the one that goes up; of an atom and its image, the shift that does.
    upward = _upward(shift)
    once = (first < second) | ((first == second) & upward)
    return Pairs(first[once].astype(np.int64), second[once].astype(np.int64), shift[once], distance[once])


def _upward(shift: Floats) -> npt.NDArray[np.bool_]:
    """Whether the first number of each shift that is not 0 is positive."""
    leading = np.argmax(shift != 0, axis=1)
    return np.take_along_axis(shift, leading[:, None], axis=1)[:, 0] > 0


def _search_boxes(structure: Structure, cell: Floats, cutoff: float) -> _Found:
    positions = np.ascontiguousarray(structure.positions)
    if not structure.periodic:
        cell = np.diag(np.ptp(positions, axis=0) + 1.0)
    found: _Found = _library.find_points_in_spheres(
        positions,
        positions,
        r=float(cutoff),
        pbc=np.ascontiguousarray(structure.pbc, dtype=np.int64),
        lattice=np.ascontiguousarray(cell),
        tol=1e-8,
    )
    return found


def _search_trees(structure: Structure, cell: Floats, cutoff: float) -> _Found:
    """The same where space is wide and empty: a tree of the atoms, another of their images around."""
    inverse = np.linalg.inv(cell)
    reach = np.where(structure.pbc, cutoff * np.linalg.norm(inverse, axis=0), 0.0)
    scaled = structure.positions @ inverse
    home = np.where(structure.pbc, np.floor(scaled), 0.0)
    scaled = scaled - home
    most: list[int] = np.ceil(reach).astype(np.int64).tolist()
    shifts: Floats = np.array(list(product(*(range(-n, n + 1) for n in most))), dtype=np.float64)
    images = (scaled[:, None] + shifts).reshape(-1, 3)
    near = ((images >= -reach) & (images <= 1 + reach) | ~structure.pbc).all(axis=1)
    atom = np.repeat(np.arange(len(scaled)), len(shifts))[near]
    shift = np.tile(shifts, (len(scaled), 1))[near]
    trees = _KDTree(scaled @ cell), _KDTree(images[near] @ cell)
    found = trees[0].sparse_distance_matrix(trees[1], cutoff, output_type="ndarray")
    first, image = found["i"], found["j"]
    second = atom[image]
    return first, second, shift[image] - home[second] + home[first], found["v"]


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
