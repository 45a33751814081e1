"""Atoms in space, as ASE and pymatgen hold them, as the fields of a contract."""

from __future__ import annotations

import importlib
from collections.abc import Collection
from typing import Any, Protocol, TypeAlias

from sheaf_client._inputs.constraints import check_no_energy, held_axes, refusal
from sheaf_client._inputs.kinds import comes_from


class _Atoms(Protocol):
    """ASE's `Atoms`."""

    def get_atomic_numbers(self) -> Any: ...
    def get_positions(self) -> Any: ...
    def get_pbc(self) -> Any: ...


class _Sites(Protocol):
    """pymatgen's `Structure` and `Molecule`."""

    @property
    def atomic_numbers(self) -> Any: ...
    @property
    def cart_coords(self) -> Any: ...


StructureLike: TypeAlias = _Atoms | _Sites
"""An `ase.Atoms`, or a `Structure` or `Molecule` of pymatgen's."""

FIELDS = frozenset({"atomic_numbers", "positions", "cell", "pbc"})
#: Fields of structures that move; a keyword beside the atoms stands in place of what these say.
RELAXED = frozenset({"fixed"})
SIMULATED = RELAXED | {"masses", "velocities"}

#: Molecules farther from the origin, in Å, are brought near before their positions become float32.
_FAR = 100.0


def structure_fields(value: Any) -> dict[str, Any] | None:
    """Fields to compute a structure by; None where the value is no structure.

    These are `atomic_numbers`, `positions` (Å), `cell` (rows, Å) and `pbc`. Which image of an atom is given
    changes no energy and no force, and float32 is coarse far off: atoms beyond the cells around the origin
    are brought back by whole lattice vectors.

    Raises:
        InvalidRequestError: A constraint adds to the energy, or a site holds several species.
    """
    fields = geometry(value)
    if fields is None:
        return None
    if comes_from(value, "ase", "Atoms"):
        check_no_energy(value)
    return {**fields, "positions": _near(fields)}


def relaxed_fields(value: Any, replaced: Collection[str] = ()) -> dict[str, Any] | None:
    """Fields to relax a structure by: where its atoms are, and `fixed` where some are held.

    Where `fixed` is `replaced`, nothing is read of what holds the atoms.

    Raises:
        InvalidRequestError: A constraint does not hold atoms or axes, or a site holds several species.
    """
    fields = geometry(value)
    if fields is None:
        return None
    if "fixed" in replaced:
        if comes_from(value, "ase", "Atoms"):
            check_no_energy(value)
        return fields
    held = held_axes(value)
    return fields if held is None else {**fields, "fixed": held}


def simulated_fields(value: Any, replaced: Collection[str] = ()) -> dict[str, Any] | None:
    """Fields to simulate a structure by: those to relax it by, its `masses` (u) and `velocities` (Å/fs).

    Raises:
        InvalidRequestError: A constraint does not hold atoms or axes, or a site holds several species.
    """
    fields = relaxed_fields(value, replaced)
    return None if fields is None else fields | motion(value)


def geometry(value: Any) -> dict[str, Any] | None:
    """`atomic_numbers`, `positions` (Å), `cell` (rows, Å) and `pbc` as they are; None for no structure."""
    if comes_from(value, "ase", "Atoms"):
        cell = value.cell.array
        return {
            "atomic_numbers": value.get_atomic_numbers(),
            "positions": value.get_positions(),
            "cell": cell if cell.any() else None,
            "pbc": value.get_pbc(),
        }
    if comes_from(value, "pymatgen", "SiteCollection"):
        for i, site in enumerate(value):
            if not site.is_ordered:
                message = f"Site {i} holds {site.species_string}; each site must hold one element."
                raise refusal(f"/atomic_numbers/{i}", message)
        lattice = getattr(value, "lattice", None)
        return {
            "atomic_numbers": list(value.atomic_numbers),
            "positions": value.cart_coords,
            "cell": None if lattice is None else lattice.matrix,
            "pbc": False if lattice is None else [bool(flag) for flag in lattice.pbc],
        }
    return None


def motion(value: Any) -> dict[str, Any]:
    """`masses` (u) and `velocities` (Å/fs) of a structure that has its own."""
    return _motion_of_ase(value) if comes_from(value, "ase", "Atoms") else _motion_of_pymatgen(value)


def _motion_of_ase(atoms: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if atoms.has("masses"):
        found["masses"] = atoms.get_masses().tolist()
    if atoms.has("momenta"):
        found["velocities"] = atoms.get_velocities() * importlib.import_module("ase.units").fs
    return found


def _motion_of_pymatgen(sites: Any) -> dict[str, Any]:
    import numpy as np

    found: dict[str, Any] = {}
    elements = [getattr(site.specie, "element", site.specie) for site in sites]
    # pymatgen has deuterium and tritium as elements of their own, and no other masses.
    if any(element.name in {"D", "T"} for element in elements):
        found["masses"] = [float(element.atomic_mass) for element in elements]
    velocities = sites.site_properties.get("velocities")
    if velocities is not None:
        found["velocities"] = np.asarray(velocities)
    return found


def _near(fields: dict[str, Any]) -> Any:
    """The positions, those far off moved by whole lattice vectors, a molecule far off as a whole."""
    import numpy as np

    positions = np.asarray(fields["positions"], dtype=np.float64)
    repeats = np.broadcast_to(np.asarray(fields["pbc"], dtype=bool), (3,))
    cell = np.zeros((3, 3)) if fields["cell"] is None else np.asarray(fields["cell"], dtype=np.float64)
    if not np.isfinite(positions).all() or not np.isfinite(cell).all():
        return positions
    if repeats.any():
        vectors = cell[repeats]
        return positions - np.trunc(positions @ np.linalg.pinv(vectors)) @ vectors
    middle = positions.mean(axis=0) if len(positions) else np.zeros(3)
    return positions - middle if np.abs(middle).max() > _FAR else positions
