"""Atoms that ASE and pymatgen hold, as flags of their axes; what flags cannot say is refused by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from sheaf_client._inputs.kinds import comes_from

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Flags = NDArray[np.bool_]

_HONOURED = "FixAtoms, and FixCartesian, FixScaled, FixedLine and FixedPlane that follow the Cartesian axes"
#: Lengths of this part of a vector count as none.
_TOLERANCE = 1e-6


def held_axes(value: Any) -> list[bool] | list[list[bool]] | None:
    """Flags of the held atoms of an `ase.Atoms` or of pymatgen's sites; None where none is held.

    Their shape is (n_atoms,), and (n_atoms, 3) where axes of some are held.

    Raises:
        InvalidRequestError: A constraint does more than to hold atoms, or axes of atoms.
    """
    held = _held_by_ase(value) if comes_from(value, "ase", "Atoms") else _held_by_pymatgen(value)
    if held is None or not held.any():
        return None
    whole = held.all(axis=1)
    flags: Any = whole if (whole == held.any(axis=1)).all() else held
    return cast("list[bool] | list[list[bool]]", flags.tolist())


def check_no_energy(atoms: Any) -> None:
    """Refuse constraints of ASE that add to the energy, as springs do; others leave energies as they are."""
    for constraint in atoms.constraints:
        if hasattr(constraint, "adjust_potential_energy"):
            name = type(constraint).__name__
            message = f"{name} adds to the energy of the atoms, which is not computed. {_how_to_drop(name)}"
            raise refusal("", message)


def refusal(path: str, message: str) -> Exception:
    """The error for atoms that carry what no field can say; `path` is a JSON Pointer into the request."""
    from sheaf_client.contracts.problem import Fault
    from sheaf_client.errors import InvalidRequestError

    return InvalidRequestError(
        "The request is invalid.", errors=[Fault(code="unsupported", path=path, message=message)]
    )


def _how_to_drop(name: str) -> str:
    return f"To compute without {name}, drop it: atoms.set_constraint() drops all constraints."


def _held_by_ase(atoms: Any) -> Flags:
    import numpy as np

    held = np.zeros((len(atoms), 3), dtype=bool)
    for constraint in atoms.constraints:
        name, own = type(constraint).__name__, type(constraint).__module__.startswith("ase.")
        axes = _AXES[name](constraint.todict()["kwargs"], atoms) if own and name in _AXES else None
        if axes is None:
            message = f"{name} is not honoured; {_HONOURED} are. {_how_to_drop(name)}"
            raise refusal("/fixed", message)
        held[constraint.get_indices()] |= axes
    return held


def _held_by_pymatgen(sites: Any) -> Flags | None:
    import numpy as np

    free = sites.site_properties.get("selective_dynamics")
    if free is None:
        return None
    held = np.array([~_moves(flags, site) for site, flags in enumerate(free)])
    cell: Any = getattr(getattr(sites, "lattice", None), "matrix", None)
    for mask in () if cell is None else np.unique(held, axis=0):
        axes = _across(cell, mask)
        # The flags are of lattice vectors to VASP and of Cartesian axes to pymatgen's own bridge to ASE.
        if axes is None or not (axes == mask).all():
            message = (
                f"selective_dynamics {(~mask).tolist()} is of lattice vectors, here not the Cartesian axes; "
                "hold whole atoms, or take the property off and give `fixed`, flags of Cartesian axes."
            )
            raise refusal("/fixed", message)
    return held


def _moves(flags: Any, site: int) -> Flags:
    """Along which vectors a site moves; a site that says nothing moves, as do all of a file without flags."""
    import numpy as np

    if flags is None:
        return np.ones(3, dtype=bool)
    read = np.asarray(flags, dtype=object)
    # Any text counts as true to numpy, "F" too.
    if read.shape != (3,) or not all(flag in (0, 1) for flag in read):
        message = (
            f"selective_dynamics of site {site} is {flags!r}; expected three flags, True where the site "
            "moves along a lattice vector and False where it is held."
        )
        raise refusal("/fixed", message)
    return read.astype(bool)


def _across(cell: Any, mask: Flags) -> Flags | None:
    """The Cartesian axes that are held where these lattice vectors are; None where they are others."""
    import numpy as np

    if mask.all() or not mask.any():
        return mask
    cell = np.asarray(cell, dtype=np.float64)
    if abs(np.linalg.det(cell)) < _TOLERANCE:
        return None
    moves = cast("NDArray[np.float64]", np.linalg.inv(cell) @ (cell * ~mask[:, None]))
    free = np.diag(moves) > 0.5
    return ~free if np.abs(moves - np.diag(free)).max() < _TOLERANCE else None


def _scaled(given: Mapping[str, Any], atoms: Any) -> Flags | None:
    import numpy as np

    return _across(atoms.cell.array, np.asarray(given["mask"], bool))


def _axis(direction: Any) -> Flags | None:
    """The Cartesian axis along which a vector is."""
    import numpy as np

    along = np.abs(np.asarray(direction, dtype=np.float64))
    axis = along > _TOLERANCE * along.max()
    return axis if axis.sum() == 1 else None


def _line(given: Mapping[str, Any], _: Any) -> Flags | None:
    axis = _axis(given["direction"])
    return None if axis is None else ~axis


#: Constraint → from what it was made of, and the atoms, the axes that it holds; None where these are none.
_AXES: dict[str, Callable[[Mapping[str, Any], Any], Any]] = {
    "FixAtoms": lambda _, __: True,
    "FixCartesian": lambda given, _: given["mask"],
    "FixScaled": _scaled,
    "FixedLine": _line,
    "FixedPlane": lambda given, _: _axis(given["direction"]),
}
