"""Answers as atoms: exactly where, how fast and with what they are, from ASE's, pymatgen's and requests."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase import units
from ase.build import bulk, molecule
from ase.constraints import FixAtoms, FixBondLength, FixCartesian, FixSymmetry
from pymatgen.core import IStructure, Lattice, Molecule, Structure
from pymatgen.io.ase import AseAtomsAdaptor

from sheaf_client.contracts.materials import (
    MaterialsResponse,
    MolecularDynamicsRequest,
    MolecularDynamicsResponse,
    RelaxRequest,
    RelaxResponse,
)

Array = np.ndarray[Any, Any]
WATER = molecule("H2O")


def answered(kind: Any, positions: Array, **fields: Any) -> Any:
    n_atoms = len(positions)
    walk = {
        "positions": positions,
        "forces": np.full((n_atoms, 3), 0.25, np.float32),
        "n_frames": 1,
        "frame_steps": [0],
        "energies": [-3.5],
        "trajectory": positions[None],
        "n_steps": 0,
    }
    return kind.model_validate(
        {
            "request_id": "11111111-2222-4333-8444-555555555555",
            "model_name": "m",
            "energy": -3.5,
            "n_atoms": n_atoms,
            **(walk if kind is not MaterialsResponse else {}),
            **fields,
        }
    )


def relaxed(positions: Array, **fields: Any) -> RelaxResponse:
    return answered(RelaxResponse, positions, converged=True, max_forces=[0.0], **fields)


def simulated(positions: Array, velocities: Array) -> MolecularDynamicsResponse:
    more = {"kinetic_energies": [0.0], "temperatures": [0.0], "velocities": velocities}
    return answered(MolecularDynamicsResponse, positions, **more)


def elsewhere(atoms: Any, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(len(atoms), 3)).astype(np.float32)


@pytest.mark.parametrize(
    "constraint",
    [FixAtoms([0, 1]), FixCartesian([0], [True, False, False]), FixBondLength(0, 1), FixSymmetry(bulk("Si"))],
    ids=lambda constraint: type(constraint).__name__,
)
def test_atoms_stand_where_the_answer_says_whatever_holds_them(constraint: Any) -> None:
    atoms = bulk("Si")
    atoms.set_constraint(constraint)
    atoms.set_tags([3, 4])
    atoms.info["name"] = "silicon"
    positions, cell = elsewhere(atoms), (atoms.cell.array * [1, 1.1, 0.9]).tolist()
    held = relaxed(positions, cell=cell, stress=np.ones(6, np.float32)).to_ase(atoms)
    np.testing.assert_array_equal(held.positions, positions)
    np.testing.assert_array_equal(held.cell.array, cell)
    assert held.get_potential_energy() == -3.5
    np.testing.assert_array_equal(held.get_forces(apply_constraint=False), np.full((2, 3), 0.25))
    np.testing.assert_array_equal(held.get_stress(apply_constraint=False), np.ones(6))
    assert [type(found) for found in held.constraints] == [type(constraint)]
    assert (held.get_tags().tolist(), held.info) == ([3, 4], {"name": "silicon"})


def test_velocities_are_the_answers_by_the_masses_of_the_atoms() -> None:
    atoms = WATER.copy()
    atoms.set_masses([15.999, 2.014, 2.014])
    atoms.set_momenta(np.ones((3, 3)))
    atoms.set_constraint(FixAtoms([0]))
    velocities = elsewhere(atoms, 1) / 100
    held = simulated(elsewhere(atoms), velocities).to_ase(atoms)
    np.testing.assert_allclose(held.get_velocities() * units.fs, velocities, rtol=1e-12)
    np.testing.assert_array_equal(held.get_masses(), [15.999, 2.014, 2.014])
    # An answer without velocities leaves those of the atoms.
    np.testing.assert_array_equal(relaxed(elsewhere(atoms)).to_ase(atoms).get_momenta(), np.ones((3, 3)))


def test_a_request_comes_back_with_what_it_held_and_weighed() -> None:
    body = {"model_name": "m", "atomic_numbers": [8, 1, 1], "positions": WATER.positions}
    fixed = [[True, True, True], [False, True, False], [False, True, False]]
    given = {"fixed": fixed, "masses": [16, 2, 2], "velocities": elsewhere(WATER, 2)}
    request = MolecularDynamicsRequest.model_validate({**body, **given, "n_steps": 1})
    velocities = elsewhere(WATER, 1)
    held = simulated(elsewhere(WATER), velocities).to_ase(request)
    assert held.get_masses().tolist() == [16, 2, 2]
    np.testing.assert_allclose(held.get_velocities() * units.fs, velocities, rtol=1e-12)
    found = {(type(c).__name__, tuple(c.get_indices().tolist())) for c in held.constraints}
    assert found == {("FixAtoms", (0,)), ("FixCartesian", (1, 2))}
    assert held.get_number_of_degrees_of_freedom() == 4
    still = relaxed(elsewhere(WATER)).to_ase(
        RelaxRequest.model_validate({**body, "fixed": [False, True, False]})
    )
    assert [c.get_indices().tolist() for c in still.constraints] == [[1]]


@pytest.mark.parametrize("kind", [Structure, IStructure])
def test_structures_of_pymatgen_come_back_with_all_they_carry(kind: Any) -> None:
    properties = {
        "selective_dynamics": [[True, True, False], [False, False, False]],
        "velocities": [[0.01, 0, 0], [0, 0, 0]],
        "magmom": [1.0, -1.0],
        "tags": [1, 2],
    }
    sites: Any = kind(Lattice.cubic(5.6), ["Na", "Cl"], [[0, 0, 0], [0.5] * 3], site_properties=properties)
    before = sites.site_properties
    positions = elsewhere(sites)
    held: Any = relaxed(positions, cell=np.diag([5, 5, 6.0]).tolist()).to_ase(sites)
    np.testing.assert_array_equal(held.positions, positions)
    np.testing.assert_allclose(held.get_velocities() * units.fs, properties["velocities"], atol=1e-12)
    assert held.get_initial_magnetic_moments().tolist() == [1, -1]
    assert held.get_tags().tolist() == [1, 2]
    assert sites.site_properties == before
    back = AseAtomsAdaptor.get_structure(held)
    np.testing.assert_allclose(back.cart_coords, positions, atol=1e-6)
    assert back.site_properties["selective_dynamics"] == properties["selective_dynamics"]
    assert back.lattice.c == 6


def test_lattice_directions_that_are_held_come_back_as_pymatgen_itself_gives_them() -> None:
    free = [[True, False, False], None]
    sites: Any = Structure(Lattice.rhombohedral(4, 60), ["Na", "Cl"], [[0, 0, 0], [0.5] * 3])
    sites.add_site_property("selective_dynamics", free)
    held = answered(MaterialsResponse, elsewhere(sites)).to_ase(sites)
    assert [repr(found) for found in held.constraints] == [repr(FixCartesian([0], [False, True, True]))]


def test_molecules_of_pymatgen_keep_their_isotopes() -> None:
    heavy = Molecule(["O", "D", "H"], WATER.positions)
    held: Any = answered(MaterialsResponse, WATER.positions).to_ase(heavy)
    assert held.get_masses()[1] == pytest.approx(2.0136, abs=1e-3)
    assert not held.pbc.any()
