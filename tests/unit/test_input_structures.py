"""What atoms carry beside their places: honoured by the fields of what moves, or refused with its name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, fcc111, molecule
from ase.constraints import (
    ExternalForce,
    FixAtoms,
    FixBondLengths,
    FixCartesian,
    FixCom,
    FixedLine,
    FixedPlane,
    FixInternals,
    FixLinearTriatomic,
    FixScaled,
    FixSymmetry,
    Hookean,
)
from ase.filters import FrechetCellFilter
from pymatgen.core import Element, IStructure, Lattice, Molecule, Structure

from sheaf_client._inputs import expand
from sheaf_client._operation import Operation
from sheaf_client.errors import InvalidRequestError
from sheaf_client.operations.materials import COMPUTE, MOLECULAR_DYNAMICS, RELAX
from tests.unit.built import build, taken

Array = np.ndarray[Any, Any]
WATER = molecule("H2O")


def constrained(atoms: Atoms, *constraints: Any) -> Atoms:
    found = atoms.copy()
    found.set_constraint(list(constraints))
    return found


def simulated(whole: object, **fields: Any) -> Any:
    return taken(MOLECULAR_DYNAMICS, whole, n_steps=1, **fields)


def refused(operation: Operation[Any, Any], whole: object) -> tuple[str, str, str]:
    with pytest.raises(InvalidRequestError) as caught:
        expand(operation.request, whole)
    (fault,) = caught.value.errors
    return fault.code, fault.path, fault.message


@pytest.mark.parametrize(
    ("constraints", "fixed"),
    [
        ([FixAtoms([0, -1])], [True, False, True]),
        ([FixAtoms(mask=[False, True, False]), FixAtoms([0])], [True, True, False]),
        ([FixCartesian([1], [True, False, False])], [[0, 0, 0], [1, 0, 0], [0, 0, 0]]),
        ([FixCartesian(1)], [False, True, False]),
        ([FixCartesian([0], [True, False, False]), FixAtoms([0])], [True, False, False]),
        ([FixedLine([0], [0, 0, 3])], [[1, 1, 0], [0, 0, 0], [0, 0, 0]]),
        ([FixedPlane([0, 2], [0, -1, 0])], [[0, 1, 0], [0, 0, 0], [0, 1, 0]]),
        ([FixedPlane(0, [1, 0, 0]), FixedLine(0, [0, 0, 1])], [[1, 1, 0], [0, 0, 0], [0, 0, 0]]),
        ([FixScaled([1])], [False, True, False]),
        ([FixAtoms([])], None),
        ([], None),
    ],
    ids=str,
)
def test_held_atoms_of_ase_are_flags(constraints: list[Any], fixed: Any) -> None:
    atoms = constrained(WATER, *constraints)
    wanted = None if fixed is None else np.array(fixed, dtype=bool).tolist()
    assert taken(RELAX, atoms).fixed == wanted
    assert simulated(atoms).fixed == wanted


@pytest.mark.parametrize(
    ("mask", "held"),
    [
        ([True, True, False], [True, True, False]),
        ([False, False, True], [False, False, True]),
        ([True, True, True], [True, True, True]),
    ],
)
def test_lattice_vectors_that_span_the_same_as_axes_are_axes(mask: list[bool], held: list[bool]) -> None:
    slab = fcc111("Cu", (1, 1, 2), vacuum=8, orthogonal=False)
    assert slab.cell[1, 0] > 0.1
    fixed = taken(RELAX, constrained(slab, FixScaled([1], mask))).fixed
    assert np.array(fixed).reshape(2, -1)[1].tolist() == ([True] if all(held) else held)


def springs() -> list[Any]:
    return [Hookean(0, 1, k=5, rt=1.0), ExternalForce(0, 1, 0.5)]


class Sticky(FixAtoms):
    """A constraint of somebody's own, which may do anything."""


REFUSED: list[tuple[Atoms, Any, str]] = [
    *((WATER, spring, type(spring).__name__) for spring in springs()),
    (WATER, FixBondLengths([[0, 1]]), "FixBondLengths"),
    (WATER, FixInternals(bonds=[[1.0, [0, 1]]]), "FixInternals"),
    (WATER, FixCom(), "FixCom"),
    (WATER, FixLinearTriatomic([(0, 1, 2)]), "FixLinearTriatomic"),
    (WATER, FixedLine(0, [1, 1, 0]), "FixedLine"),
    (WATER, FixedPlane(0, [0, 1, 1e-3]), "FixedPlane"),
    (WATER, Sticky([0]), "Sticky"),
    (bulk("Si"), FixScaled([0], [True, False, False]), "FixScaled"),
    (bulk("Si", cubic=True), FixSymmetry(bulk("Si", cubic=True)), "FixSymmetry"),
]


@pytest.mark.parametrize(("atoms", "constraint", "name"), REFUSED, ids=[name for *_, name in REFUSED])
@pytest.mark.parametrize("operation", [RELAX, MOLECULAR_DYNAMICS], ids=["relax", "simulate"])
def test_other_constraints_are_refused_by_name(
    operation: Any, atoms: Atoms, constraint: Any, name: str
) -> None:
    code, path, message = refused(operation, constrained(atoms, FixAtoms([0]), constraint))
    assert (code, path) == ("unsupported", "/fixed")
    assert message.startswith(f"{name} is not honoured; FixAtoms")
    assert "atoms.set_constraint()" in message
    dropped = constrained(atoms, constraint)
    dropped.set_constraint()
    assert expand(operation.request, dropped)["atomic_numbers"] is not None


@pytest.mark.parametrize("operation", [RELAX, MOLECULAR_DYNAMICS], ids=["relax", "simulate"])
def test_a_keyword_stands_in_place_of_constraints_but_not_of_their_energy(operation: Any) -> None:
    steps: dict[str, Any] = {"n_steps": 1, "ensemble": "nve"} if operation is MOLECULAR_DYNAMICS else {}
    atoms = constrained(WATER, FixAtoms([0]), FixBondLengths([[0, 1]]))
    for fixed in ([False, False, True], None):
        assert taken(operation, atoms, fixed=fixed, **steps).fixed == fixed
    with pytest.raises(InvalidRequestError, match="Hookean adds to the energy"):
        taken(operation, constrained(WATER, springs()[0]), fixed=[False, False, True], **steps)


def test_a_filter_of_the_cell_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="FrechetCellFilter cannot stand for a RelaxRequest"):
        expand(RELAX.request, FrechetCellFilter(bulk("Si")))


def test_energies_are_of_the_potential_alone() -> None:
    symmetric = bulk("Si", cubic=True)
    for constraint in (FixAtoms([0]), FixSymmetry(symmetric), FixBondLengths([[0, 1]])):
        assert taken(COMPUTE, constrained(symmetric, constraint)).atomic_numbers == [14] * 8
    for spring in springs():
        code, path, message = refused(COMPUTE, constrained(WATER, spring))
        assert (code, path) == ("unsupported", "")
        assert message.startswith(f"{type(spring).__name__} adds to the energy")
    with pytest.raises(InvalidRequestError) as caught:
        build(COMPUTE, structures=[WATER, constrained(WATER, springs()[0])])
    assert [fault.path for fault in caught.value.errors] == ["/structures/1"]


def test_masses_and_momenta_move_the_atoms() -> None:
    heavy = WATER.copy()
    assert (simulated(heavy).masses, simulated(heavy).velocities) == (None, None)
    heavy.set_masses([15.999, 2.014, 3.016])
    velocities = np.random.default_rng(0).normal(size=(3, 3)) * 0.01
    heavy.set_velocities(velocities / units.fs)
    request = simulated(heavy)
    assert request.masses == [15.999, 2.014, 3.016]
    np.testing.assert_allclose(request.velocities, velocities, rtol=1e-6)
    heavy.set_momenta(np.zeros((3, 3)))
    assert not simulated(heavy).velocities.any()
    for operation in (RELAX, COMPUTE):
        assert not {"masses", "velocities"} & expand(operation.request, heavy).keys()


def test_what_changes_no_answer_is_left_alone() -> None:
    iron = bulk("Fe") * (2, 1, 1)
    bare = {operation: expand(operation.request, iron) for operation in (COMPUTE, RELAX, MOLECULAR_DYNAMICS)}
    iron.set_initial_magnetic_moments([2, -2])
    iron.set_initial_charges([1, -1])
    iron.set_tags([1, 2])
    iron.info["charge"] = 1
    for operation, fields in bare.items():
        found = expand(operation.request, iron)
        assert found.keys() == fields.keys() == {"atomic_numbers", "positions", "cell", "pbc"}


# ---- pymatgen


def salt(lattice: Lattice, **properties: Any) -> Structure:
    return Structure(lattice, ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]], site_properties=properties)


def test_selective_dynamics_holds_what_it_says_no_to() -> None:
    free = [[True, True, False], [False, False, False]]
    assert taken(RELAX, salt(Lattice.cubic(5.6), selective_dynamics=free)).fixed == [
        [False, False, True],
        [True, True, True],
    ]
    whole = [[True, True, True], [False, False, False]]
    assert taken(RELAX, salt(Lattice.rhombohedral(4, 60), selective_dynamics=whole)).fixed == [False, True]
    assert taken(RELAX, salt(Lattice.hexagonal(4, 6), selective_dynamics=free)).fixed == [
        [False, False, True],
        [True, True, True],
    ]
    assert simulated(salt(Lattice.cubic(5.6), selective_dynamics=[[True] * 3, None])).fixed is None
    gas = Molecule(["O", "O"], [[0, 0, 0], [0, 0, 1]], site_properties={"selective_dynamics": free})
    assert taken(RELAX, gas).fixed == [[False, False, True], [True, True, True]]


@pytest.mark.parametrize(
    "flags",
    [
        *([text] * 3 for text in ("F", "T", "False", "")),
        *(
            False,
            True,
            [True, False],
            [[True] * 3],
            [[True], [True, False], True],
            [2, 0, 1],
            [float("nan")] * 3,
            [None, True, True],
        ),
    ],
    ids=repr,
)
def test_selective_dynamics_is_three_flags_a_site(flags: Any) -> None:
    held = salt(Lattice.cubic(5.6), selective_dynamics=[[True] * 3, flags])
    for operation in (RELAX, MOLECULAR_DYNAMICS):
        code, path, message = refused(operation, held)
        assert (code, path) == ("unsupported", "/fixed")
        assert message.startswith(f"selective_dynamics of site 1 is {flags!r}; expected three flags")
    assert taken(RELAX, held, fixed=[True, False]).fixed == [True, False]
    numbers = salt(Lattice.cubic(5.6), selective_dynamics=[[0, 0, 0], [1.0, 1.0, 1.0]])
    assert taken(RELAX, numbers).fixed == [True, False]


def test_selective_dynamics_along_other_vectors_than_the_axes_is_refused() -> None:
    free = [[True, False, False], [True, True, True]]
    held = salt(Lattice.rhombohedral(4, 60), selective_dynamics=free)
    code, path, message = refused(RELAX, held)
    assert (code, path) == ("unsupported", "/fixed")
    assert message.startswith("selective_dynamics [True, False, False]")
    turned = salt(Lattice([[0, 4, 0], [4, 0, 0], [0, 0, 4]]), selective_dynamics=free)
    assert refused(MOLECULAR_DYNAMICS, turned)[:2] == ("unsupported", "/fixed")
    assert taken(COMPUTE, held).atomic_numbers == [11, 17]


def test_velocities_and_isotopes_of_pymatgen_move_the_atoms() -> None:
    velocities = [[0.01, 0, 0], [0, 0.02, 0]]
    np.testing.assert_allclose(
        simulated(salt(Lattice.cubic(5.6), velocities=velocities)).velocities, velocities
    )
    heavy = Molecule(["O", "D", "H"], WATER.positions)
    assert simulated(heavy).masses == [float(Element(name).atomic_mass) for name in ("O", "D", "H")]
    assert simulated(heavy).masses[1] == pytest.approx(2.0136, abs=1e-3)
    assert simulated(salt(Lattice.cubic(5.6), magmom=[1, -1], charge=[1, -1])).masses is None


def test_a_site_of_several_species_is_refused() -> None:
    mixed = IStructure(Lattice.cubic(5.6), ["Cl", {"Na": 0.5, "K": 0.5}], [[0, 0, 0], [0.5, 0.5, 0.5]])
    for operation in (COMPUTE, RELAX, MOLECULAR_DYNAMICS):
        code, path, message = refused(operation, mixed)
        assert (code, path) == ("unsupported", "/atomic_numbers/1")
        assert "one element" in message


# ---- far off


def test_atoms_far_off_are_computed_near_the_cell_and_moved_from_where_they_are() -> None:
    crystal = bulk("Si")
    crystal.rattle(0.1)
    near = crystal.positions.copy()
    crystal.positions += np.array([[700, -800, 900], [-1000, 0, 3]]) @ crystal.cell.array
    assert np.abs(within(crystal, taken(COMPUTE, crystal).positions - near)).max() < 1e-6
    np.testing.assert_array_equal(taken(RELAX, crystal).positions, crystal.positions.astype(np.float32))
    np.testing.assert_array_equal(simulated(crystal).positions, crystal.positions.astype(np.float32))
    crystal.positions[:] = near
    np.testing.assert_array_equal(taken(COMPUTE, crystal).positions, near.astype(np.float32))


def within(crystal: Atoms, apart: Array) -> Array:
    """Distances but for whole lattice vectors."""
    scaled = apart @ np.linalg.inv(crystal.cell.array)
    return (scaled - np.round(scaled)) @ crystal.cell.array


def test_only_what_repeats_is_brought_back() -> None:
    slab = fcc111("Cu", (1, 1, 2))
    slab.positions += [300 * slab.cell[0, 0], 0, 50]
    found = taken(COMPUTE, slab).positions
    assert np.abs(found[:, :2]).max() < 10
    np.testing.assert_allclose(found[:, 2], slab.positions[:, 2], rtol=1e-6)
    away = WATER.copy()
    away.positions += 5000
    found = taken(COMPUTE, away).positions
    assert np.abs(found - found[0] - (WATER.positions - WATER.positions[0])).max() < 1e-6
