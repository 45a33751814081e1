"""Answers as ASE's atoms: those that were sent, with their results, or those of a structure's file."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any, cast

from sheaf_client._base import Model

if TYPE_CHECKING:
    import numpy as np
    from ase import Atoms
    from numpy.typing import NDArray

_MISSING = ("?", ".")


def with_results(model: Any, atoms: Any) -> Atoms:
    """A copy of the atoms with energy, forces and stress of the answer as their calculator.

    They stand where the answer says, whatever constraints they have, and move as it says.
    """
    calculators = _library("ase.calculators.singlepoint")
    held = _copied(atoms)
    if len(held) != model.n_atoms:
        raise ValueError(f"the answer is of {model.n_atoms} atoms, these are {len(held)}")
    # Where the atoms moved, the answer is of where they are now; constraints would put some back.
    if (positions := getattr(model, "positions", None)) is not None:
        held.set_positions(positions, apply_constraint=False)
    if (cell := getattr(model, "cell", None)) is not None:
        held.set_cell(cell, apply_constraint=False)
    if (velocities := getattr(model, "velocities", None)) is not None:
        _set_velocities(held, velocities)
    known = ("energy", "forces", "stress")
    results = {name: value for name in known if (value := getattr(model, name, None)) is not None}
    held.calc = calculators.SinglePointCalculator(held, **results)
    return cast("Atoms", held)


def _copied(atoms: Any) -> Any:
    """The atoms as ASE's, with all that they carry but their calculator."""
    from sheaf_client._inputs.structures import FIELDS, geometry, motion

    ase = _library("ase")
    if isinstance(atoms, ase.Atoms):
        return atoms.copy()
    if geometry(atoms) is not None:
        return _with_motion(_bridged(atoms), **motion(atoms))
    if not isinstance(atoms, Model) or not type(atoms).model_fields.keys() >= FIELDS:
        raise TypeError(f"a {type(atoms).__name__} holds no atoms")
    request: Any = atoms
    made = ase.Atoms(request.atomic_numbers, request.positions, cell=request.cell, pbc=request.pbc)
    made.set_constraint(constraints(getattr(request, "fixed", None)))
    masses, velocities = getattr(request, "masses", None), getattr(request, "velocities", None)
    return _with_motion(made, masses=masses, velocities=velocities)


def _bridged(sites: Any) -> Any:
    """Sites of pymatgen's as ASE's atoms by its own bridge."""
    still = sites.copy()
    if (free := still.site_properties.get("selective_dynamics")) is not None:
        flags = [[True] * 3 if site is None else [bool(flag) for flag in site] for site in free]
        still.add_site_property("selective_dynamics", flags)
    if "velocities" in still.site_properties:
        still.remove_site_property("velocities")
    return _library("pymatgen.io.ase", "pymatgen").AseAtomsAdaptor.get_atoms(still, msonable=False)


def _with_motion(atoms: Any, masses: Any = None, velocities: Any = None) -> Any:
    if masses is not None:
        atoms.set_masses(masses)
    if velocities is not None:
        _set_velocities(atoms, velocities)
    return atoms


def _set_velocities(atoms: Any, velocities: Any) -> None:
    """Velocities in Å/fs, as the momenta that ASE keeps."""
    import numpy as np

    speeds = np.asarray(velocities, dtype=np.float64) / _library("ase.units").fs
    atoms.set_momenta(speeds * atoms.get_masses()[:, None], apply_constraint=False)


def held_axes(fixed: Sequence[Any]) -> NDArray[np.bool_]:
    """Which axes of which atoms are held, shape (n_atoms, 3), by flags of atoms or of axes."""
    import numpy as np

    flags = np.asarray(fixed, dtype=bool)
    return flags if flags.ndim == 2 else np.repeat(flags[:, None], 3, axis=1)


def constraints(fixed: Sequence[Any] | None) -> list[Any]:
    """ASE's constraints that hold what is flagged: one holds each axis, so that it counts once."""
    import numpy as np

    if fixed is None:
        return []
    ase, held = _library("ase.constraints"), held_axes(fixed)
    found: list[Any] = []
    for mask in np.unique(held, axis=0):
        chosen = np.flatnonzero((held == mask).all(axis=1))
        if mask.all():
            found.append(ase.FixAtoms(chosen))
        elif mask.any():
            found.append(ase.FixCartesian(chosen, mask))
    return found


def read_structure(text: str, file_format: str) -> Atoms:
    """The atoms of the first model in the text of a `pdb` or `mmcif` file, positions in Å.

    Raises:
        ImportError: ASE is not installed, or Biopython, which reads mmCIF.
        ValueError: The text holds no atoms, or is no such file.
    """
    try:
        atoms = _read_pdb(text) if file_format == "pdb" else _read_mmcif(text)
    except ValueError as error:
        raise ValueError(f"the structure is no {file_format} file with atoms: {error}") from error
    if not len(atoms):
        raise ValueError(f"the structure is no {file_format} file with atoms")
    return cast("Atoms", atoms)


def _read_pdb(text: str) -> Any:
    atoms = _library("ase.io").read(StringIO(text), format="proteindatabank", index=0)
    rows = [line for line in text.splitlines() if line.startswith(("ATOM", "HETATM"))]
    # ASE's reader passes over the chains, without which the residues of a complex cannot be told apart.
    atoms.set_array("chainids", _array([row[21] for row in rows[: len(atoms)]]))
    return atoms


def _read_mmcif(text: str) -> Any:
    ase = _library("ase")
    # ASE's own CIF reader fails on atoms like O5', whose names end in a quote.
    table: Mapping[str, Any] = _library("Bio.PDB.MMCIF2Dict", "biopython").MMCIF2Dict(StringIO(text))

    def column(*names: str) -> Sequence[str]:
        found = (table.get(f"_atom_site.{name}") for name in names)
        return next((values for values in found if values), ())

    models = column("pdbx_PDB_model_num")
    count = len(column("Cartn_x")) if not models else sum(1 for number in models if number == models[0])
    axes = [[float(value) for value in column(f"Cartn_{axis}")[:count]] for axis in "xyz"]
    symbols = [symbol.capitalize() for symbol in column("type_symbol")[:count]]
    atoms = ase.Atoms(symbols, positions=list(zip(*axes, strict=True)))
    arrays: dict[str, list[Any]] = {
        "atomtypes": list(column("auth_atom_id", "label_atom_id")),
        "residuenames": list(column("auth_comp_id", "label_comp_id")),
        "residuenumbers": [int(n) if n not in _MISSING else 0 for n in column("auth_seq_id", "label_seq_id")],
        "chainids": list(column("auth_asym_id", "label_asym_id")),
        "occupancy": [float(value) for value in column("occupancy")],
        "bfactor": [float(value) for value in column("B_iso_or_equiv")],
    }
    for name, values in arrays.items():
        if values:
            atoms.set_array(name, _array(values[:count]))
    return atoms


def _array(values: list[Any]) -> Any:
    import numpy as np

    return np.array(values)


def _library(module: str, package: str | None = None) -> Any:
    """A module of a library that is typed in parts alone; the package says what to install."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        root = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != root:
            raise
        package = package or root
        message = f"these atoms need the package {package!r}: pip install {package}"
        raise ModuleNotFoundError(message, name=error.name) from error
