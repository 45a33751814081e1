"""Atoms as the potentials read them, and what a potential says of them; the units are Å and eV."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

#: A cell whose vectors span less than this part of the box of their lengths counts as flat.
_FLAT = 1e-6


class AtomFields(Protocol):
    """The fields by which contracts give a structure."""

    @property
    def atomic_numbers(self) -> list[int] | None: ...
    @property
    def positions(self) -> Any: ...
    @property
    def cell(self) -> list[list[float]] | None: ...
    @property
    def pbc(self) -> bool | list[bool]: ...


@dataclass(frozen=True, eq=False)
class Structure:
    """Atoms, where they are, and the cell that repeats them.

    Attributes:
        numbers: atomic numbers, shape (n_atoms,).
        positions: Cartesian, shape (n_atoms, 3), in Å.
        cell: lattice vectors as rows, shape (3, 3), in Å; a zero row where the caller gave none, which only
            directions that do not repeat may have.
        pbc: whether the structure repeats along each row of `cell`, shape (3,).
        has_cell: whether the caller gave a cell.
    """

    numbers: Integers
    positions: Floats
    cell: Floats
    pbc: npt.NDArray[np.bool_]
    has_cell: bool

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def periodic(self) -> bool:
        """Whether the structure repeats along any direction."""
        return bool(self.pbc.any())

    @property
    def volume(self) -> float:
        """Of the cell as given, in Å³; 0 where there is none, or where it is flat."""
        return 0.0 if is_flat(self.cell) else float(abs(np.linalg.det(self.cell)))

    def full_cell(self) -> Floats:
        """A cell of three independent vectors: those that repeat as they are, others where they are flat
        replaced by unit vectors across the rest. Shifts along directions that do not repeat are always 0, so
        what stands there changes nothing.
        """
        if not self.periodic:
            return np.eye(3)
        if not is_flat(self.cell):
            return self.cell
        cell = np.where(self.pbc[:, None], self.cell, 0.0)
        # Rows of `across` after the rank are unit vectors at right angles to all that repeat.
        across = np.linalg.svd(cell)[2]
        cell[~self.pbc] = across[int(self.pbc.sum()) :]
        return cell


@dataclass(frozen=True, eq=False)
class Properties:
    """What a potential says of one structure.

    Attributes:
        energy: of all atoms (of one cell, where periodic), in eV.
        forces: shape (n_atoms, 3), in eV/Å; None where not asked for.
        stress: shape (6,), in eV/Å³, as xx, yy, zz, yz, xz, xy; None where not asked for. Positive where the
            cell pulls together.
        warnings: one sentence each, for `metadata.warnings`.
    """

    energy: float
    forces: Floats | None = None
    stress: Floats | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PotentialFacts:
    """What is known of a loaded model.

    Attributes:
        cutoff: up to where atoms see one another, in Å.
        elements: atomic numbers that the model knows.
    """

    cutoff: float
    elements: frozenset[int]


def structure_of(fields: AtomFields) -> Structure:
    """The structure that these fields of a contract describe."""
    cell = np.zeros((3, 3)) if fields.cell is None else np.array(fields.cell, dtype=np.float64)
    return Structure(
        numbers=np.asarray(fields.atomic_numbers, dtype=np.int64),
        positions=np.asarray(fields.positions, dtype=np.float64).reshape(-1, 3),
        cell=cell,
        pbc=np.broadcast_to(np.asarray(fields.pbc, dtype=np.bool_), (3,)),
        has_cell=fields.cell is not None,
    )


def wrapped(structure: Structure) -> Structure:
    """The same crystal with its atoms moved into the cell by whole lattice vectors, where it repeats.

    Nothing that a potential says of it changes but for the better: far from the origin float32 holds fewer
    digits, and a search for neighbours passes every image on the way.
    """
    if not structure.periodic:
        return structure
    cell = structure.full_cell()
    away = np.where(structure.pbc, np.floor(structure.positions @ np.linalg.inv(cell)), 0.0)
    return replace(structure, positions=structure.positions - away @ cell) if away.any() else structure


def is_flat(vectors: Floats) -> bool:
    """Whether some of these vectors, shape (n, 3) with n up to 3, are zero or lie in the span of others."""
    lengths = np.linalg.norm(vectors, axis=1)
    if not len(vectors):
        return False
    if not lengths.all():
        return True
    return bool(np.linalg.svd(vectors / lengths[:, None], compute_uv=False)[-1] < _FLAT)


def voigt(stress: Floats) -> Floats:
    """A tensor of shape (3, 3) as xx, yy, zz, yz, xz, xy; the halves off the diagonal are averaged."""
    sym = (stress + stress.T) / 2
    return np.array([sym[0, 0], sym[1, 1], sym[2, 2], sym[1, 2], sym[0, 2], sym[0, 1]])
