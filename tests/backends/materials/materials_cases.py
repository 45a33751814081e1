"""Structures, requests and laws of physics that the tests of all potentials share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk, fcc111, molecule

from sheaf.api.materials import (
    MaterialsRequest,
    MaterialsResponse,
    MolecularDynamicsRequest,
    RelaxRequest,
)
from sheaf.backends._families.atoms.structures import Properties, structure_of
from sheaf.backends._families.materials import Place
from sheaf_client._inputs.structures import geometry

Array = np.ndarray[Any, Any]
#: What of the kit makes no sense for a potential.
EXEMPT = {
    "test_half_precision_is_near_and_another_dtype_is_refused": "it takes float32 and float64 alone",
    "test_streams_end_in_the_answer_of_a_call": "motion alone has steps; test_materials_steps.py streams it",
}


def shaken(atoms: Atoms, seed: int = 0, *, by: float = 0.05) -> Atoms:
    """Atoms out of their places, at positions that float32 holds exactly."""
    atoms = atoms.copy()
    atoms.rattle(by, seed=seed)
    atoms.positions = atoms.positions.astype(np.float32)
    return atoms


def crystals() -> list[Atoms]:
    """Cells of 1 to 27 atoms, most with angles other than 90°."""
    skew = bulk("NaCl", "rocksalt", a=5.64)
    skew.set_cell(np.array(skew.cell) @ [[1, 0.1, 0], [0, 1, 0.05], [0.02, 0, 0.97]], scale_atoms=True)
    cells = [
        bulk("Cu"),
        bulk("Si"),
        skew,
        bulk("Ti"),
        bulk("MgO", "rocksalt", a=4.2, cubic=True),
        bulk("Fe", a=2.87) * (3, 3, 3),
    ]
    return [shaken(atoms, seed) for seed, atoms in enumerate(cells)]


def molecules() -> list[Atoms]:
    return [shaken(molecule(name), seed) for seed, name in enumerate(("H2O", "C6H6", "H", "CH3CH2OH"))]


def slab() -> Atoms:
    """A surface: no repeats across it, and no lattice vector there."""
    return shaken(fcc111("Al", size=(2, 2, 3)))


def fields(atoms: Atoms) -> dict[str, Any]:
    found = geometry(atoms)
    assert found is not None
    return {
        **found,
        "atomic_numbers": found["atomic_numbers"].tolist(),
        "cell": None if found["cell"] is None else found["cell"].tolist(),
        "pbc": found["pbc"].tolist(),
    }


def ask(atoms: Atoms | Sequence[Atoms], **other: Any) -> MaterialsRequest:
    given = fields(atoms) if isinstance(atoms, Atoms) else {"structures": [fields(one) for one in atoms]}
    return MaterialsRequest.model_validate({"model_name": "m", **given, **other})


def relaxation(atoms: Atoms, **other: Any) -> RelaxRequest:
    return RelaxRequest.model_validate({"model_name": "m", **fields(atoms), **other})


def dynamics(atoms: Atoms, **other: Any) -> MolecularDynamicsRequest:
    body = {"model_name": "m", "n_steps": 10, "seed": 1, **fields(atoms), **other}
    return MolecularDynamicsRequest.model_validate(body)


def properties(backend: Any, atoms: Atoms) -> Properties:
    """What the potential says, in float64 from the positions to the forces where the model is."""
    structure = structure_of(_Fields(atoms))
    (found,) = backend.evaluate([backend.neighbors(Place(structure, ""))], gradient=True)
    return found


class _Fields:
    def __init__(self, atoms: Atoms) -> None:
        self.__dict__.update(fields(atoms))


def assert_close(found: Any, expected: Any, tolerance: float = 2e-5) -> None:
    """allclose, absolute in units of the largest value or of one."""
    expected = np.asarray(expected, dtype=np.float64)
    scale = max(float(np.abs(expected).max(initial=0)), 1.0)
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * scale)


def assert_equal(outcome: Any, expected: MaterialsResponse) -> None:
    """Equal but for the last bits of float32, which depend on what shares the pass."""
    assert isinstance(outcome, MaterialsResponse), outcome
    assert (outcome.request_id, outcome.n_atoms) == (expected.request_id, expected.n_atoms)
    assert outcome.metadata.warnings == expected.metadata.warnings
    assert (outcome.results is None) == (expected.results is None)
    pairs = [(outcome, expected), *zip(outcome.results or [], expected.results or [], strict=True)]
    for one, other in pairs:
        assert_close(one.energy, other.energy)
        for part in ("forces", "stress"):
            assert (getattr(one, part) is None) == (getattr(other, part) is None)
            if getattr(other, part) is not None:
                assert_close(getattr(one, part), getattr(other, part))


def assert_same_walk(found: Any, expected: Any) -> None:
    assert isinstance(found, type(expected)), found
    assert (found.n_steps, found.frame_steps) == (expected.n_steps, expected.frame_steps)
    for part in ("positions", "forces", "energies", "trajectory"):
        assert_close(getattr(found, part), getattr(expected, part), 1e-3)


def assert_forces_are_slopes(backend: Any, atoms: Atoms, tolerance: float) -> None:
    """Forces are minus the energy's finite differences, in eV/Å."""
    forces = properties(backend, atoms).forces
    assert forces is not None
    assert np.abs(forces).max() > 0.02, "a model without forces proves nothing"
    step = 2e-5
    for atom in range(min(len(atoms), 3)):
        for axis in range(3):
            energies = []
            for way in (1, -1):
                moved = atoms.copy()
                moved.positions[atom, axis] += way * step
                energies.append(properties(backend, moved).energy)
            slope = (energies[0] - energies[1]) / (2 * step)
            np.testing.assert_allclose(forces[atom, axis], -slope, atol=tolerance)


def assert_stress_is_a_slope(backend: Any, atoms: Atoms, tolerance: float) -> None:
    """Stress is the energy's finite difference by strain over the volume, in eV/Å³ and Voigt's order."""
    stress = properties(backend, atoms).stress
    assert stress is not None
    assert np.abs(stress).max() > 1e-4
    step = 1e-5
    for place, (i, j) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
        energies = []
        for way in (1, -1):
            strain = np.eye(3)
            strain[i, j] += way * step / 2
            strain[j, i] += way * step / 2
            strained = atoms.copy()
            strained.set_cell(np.array(atoms.cell) @ strain, scale_atoms=False)
            strained.positions = atoms.positions @ strain
            energies.append(properties(backend, strained).energy)
        slope = (energies[0] - energies[1]) / (2 * step)
        np.testing.assert_allclose(stress[place], slope / atoms.get_volume(), atol=tolerance)


def assert_symmetries(backend: Any, atoms: Atoms, tolerance: float) -> None:
    """Turned, moved and renumbered atoms have the same energy, and forces that turn and renumber along."""
    before = properties(backend, atoms)
    assert before.forces is not None
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    turned = atoms.copy()
    turned.set_cell(np.array(atoms.cell) @ turn)
    turned.positions = atoms.positions @ turn
    moved = atoms.copy()
    moved.positions += [3.7, -11.2, 0.4]
    order = np.random.default_rng(4).permutation(len(atoms))
    cases = [(turned, before.forces @ turn), (moved, before.forces), (atoms[order], before.forces[order])]
    for changed, forces in cases:
        found = properties(backend, changed)
        np.testing.assert_allclose(found.energy, before.energy, atol=tolerance * len(atoms))
        np.testing.assert_allclose(found.forces, forces, atol=tolerance)
    if before.stress is not None:
        full = _tensor(before.stress)
        np.testing.assert_allclose(
            _tensor(properties(backend, turned).stress), turn.T @ full @ turn, atol=tolerance
        )


def _tensor(stress: Any) -> Array:
    xx, yy, zz, yz, xz, xy = stress
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


def atoms_of(request: MaterialsRequest) -> list[Atoms]:
    """The structures of a request as ASE has them."""
    return [
        Atoms(
            each.atomic_numbers,
            np.asarray(each.positions).reshape(-1, 3),
            cell=each.cell,
            pbc=each.pbc if each.cell is not None else False,
        )
        for each in request.structures or [request]
    ]


def summed(
    request: MaterialsRequest,
    direct: Callable[[Atoms], dict[str, Any]],
    known: Callable[[Atoms], bool] = lambda _: True,
) -> dict[str, Any]:
    """Fields of an answer from the library's own call for each structure; sizes alone where it has none."""
    structures = atoms_of(request)
    told: dict[str, Any] = {"n_atoms": sum(map(len, structures))}
    if not all(map(known, structures)):
        return told
    found = [direct(atoms) for atoms in structures]
    told["energy"] = sum(each["energy"] for each in found)
    if request.structures is None and request.compute_forces:
        told["forces"] = found[0]["forces"]
    return told
