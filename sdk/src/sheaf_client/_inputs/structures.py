"""Atoms in space, as ASE and pymatgen hold them, as the fields of a contract."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

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


def structure_fields(value: Any) -> dict[str, Any] | None:
    """`atomic_numbers`, `positions` (Å), `cell` (rows, Å) and `pbc`; None where the value is no structure."""
    if comes_from(value, "ase", "Atoms"):
        cell = value.cell.array
        return {
            "atomic_numbers": value.get_atomic_numbers(),
            "positions": value.get_positions(),
            "cell": cell if cell.any() else None,
            "pbc": value.get_pbc(),
        }
    if comes_from(value, "pymatgen", "SiteCollection"):
        lattice = getattr(value, "lattice", None)
        return {
            "atomic_numbers": list(value.atomic_numbers),
            "positions": value.cart_coords,
            "cell": None if lattice is None else lattice.matrix,
            "pbc": False if lattice is None else [bool(flag) for flag in lattice.pbc],
        }
    return None
