"""Graphs of several structures as one: atoms, bonds between neighbours, angles between short bonds.

The library builds an object for each edge and loops over them in Python; here they are index arrays, and all
structures of a pass lie in the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sheaf.backends._families.atoms.neighbors import Pairs
from sheaf.backends._families.atoms.structures import Floats, Integers, Structure


@dataclass(frozen=True, eq=False)
class Graphs:
    """Structures of one pass.

    A bond stands for both of its directions. Directed bond `k` is bond `k` seen from `first`, directed bond
    `n_bonds + k` is the same seen from `second`.

    Attributes:
        numbers: atomic numbers, shape (n_atoms,).
        positions: shape (n_atoms, 3), in Å.
        cells: shape (n_structures, 3, 3), in Å.
        owner: structure of each atom, shape (n_atoms,).
        bond_owner: structure of each bond, shape (n_bonds,).
        first, second: atoms of each bond, shape (n_bonds,).
        shift: lattice vectors from `second` to the image that is bound, shape (n_bonds, 3).
        angle_from, angle_to: directed bonds that leave one atom at an angle, each shape (n_angles,).
        sizes: atoms of each structure.
        lonely: atoms of each structure that have no bond.
    """

    numbers: Integers
    positions: Floats
    cells: Floats
    owner: Integers
    bond_owner: Integers
    first: Integers
    second: Integers
    shift: Floats
    angle_from: Integers
    angle_to: Integers
    sizes: list[int]
    lonely: list[int]


def join_graphs(structures: Sequence[Structure], pairs: Sequence[Pairs], angle_cutoff: float) -> Graphs:
    """One graph of structures and their neighbours; bonds within `angle_cutoff`, in Å, span angles."""
    sizes = [len(structure) for structure in structures]
    starts = np.cumsum([0, *sizes[:-1]])
    counts = [len(found) for found in pairs]
    first = np.concatenate([found.first + start for found, start in zip(pairs, starts, strict=True)])
    second = np.concatenate([found.second + start for found, start in zip(pairs, starts, strict=True)])
    short = np.flatnonzero(np.concatenate([found.distance for found in pairs]) < angle_cutoff)
    angle_from, angle_to = _angles(first, second, short)
    bonded = np.zeros(sum(sizes), dtype=np.bool_)
    bonded[first] = bonded[second] = True
    return Graphs(
        numbers=np.concatenate([structure.numbers for structure in structures]),
        positions=np.concatenate([structure.positions for structure in structures]),
        cells=np.stack([structure.full_cell() for structure in structures]),
        owner=np.repeat(np.arange(len(sizes)), sizes),
        bond_owner=np.repeat(np.arange(len(sizes)), counts),
        first=first,
        second=second,
        shift=np.concatenate([found.shift for found in pairs]),
        angle_from=angle_from,
        angle_to=angle_to,
        sizes=sizes,
        lonely=[int((~part).sum()) for part in np.split(bonded, starts[1:])],
    )


def _angles(first: Integers, second: Integers, short: npt.NDArray[np.intp]) -> tuple[Integers, Integers]:
    """Ordered pairs of different directed bonds, of the bonds `short`, that leave the same atom."""
    centers = np.concatenate([first[short], second[short]])
    directed = np.concatenate([short, short + len(first)])
    order = np.argsort(centers, kind="stable")
    centers, directed = centers[order], directed[order]
    # Runs of bonds of one center: each bond meets all of its run, itself taken out afterwards.
    _, start, inverse, length = np.unique(centers, return_index=True, return_inverse=True, return_counts=True)
    partners = length[inverse]
    one = np.repeat(np.arange(len(centers)), partners)
    ends = np.cumsum(partners)
    within = np.arange(len(one)) - np.repeat(ends - partners, partners)
    other = start[inverse][one] + within
    apart = one != other
    return directed[one[apart]], directed[other[apart]]
