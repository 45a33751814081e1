"""Held atoms, masses and momenta, against ASE with the same constraints on the libraries' own calculators."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, fcc111, molecule
from ase.constraints import FixAtoms, FixCartesian, FixedLine, FixedPlane, FixScaled
from ase.filters import FrechetCellFilter
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS, FIRE, LBFGS

from sheaf import ModelSpec
from sheaf.backends.chgnet import CHGNetBackend
from sheaf.backends.mace import MACEBackend
from sheaf_client import Sheaf
from sheaf_client.operations.materials import MOLECULAR_DYNAMICS, RELAX
from tests.backends.answers import fault_of
from tests.backends.materials.checkpoints import make_mace
from tests.backends.materials.materials_cases import assert_close, shaken
from tests.unit.built import taken

torch = pytest.importorskip("torch")
pytest.importorskip("chgnet")
pytestmark = [
    pytest.mark.torch,
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore"),
    # Not importorskip: on import the library changes the environment.
    pytest.mark.skipif(find_spec("mace") is None, reason="mace-torch is not installed"),
]

SALT = shaken(bulk("NaCl", "rocksalt", a=5.5, cubic=True), by=0.1)
WATER = shaken(molecule("H2O"), 2, by=0.1)


def slab() -> Atoms:
    """Two layers to hold and two to move, out of their places."""
    found = fcc111("Cu", (1, 1, 4), vacuum=8.0)
    found.pbc = True
    return shaken(found, by=0.1)


def constrained(atoms: Atoms, *constraints: Any) -> Atoms:
    found = atoms.copy()
    found.set_constraint(list(constraints))
    return found


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_mace(tmp_path_factory.mktemp("mace") / "tiny.model", atomic_inter_scale=20.0)


@pytest.fixture(scope="module")
def backend(file: Path) -> MACEBackend:
    """In float64, so that whole walks equal those of ASE."""
    found = MACEBackend(str(file), trust_pickle=True, dtype="float64")
    found.load()
    return found


@pytest.fixture(scope="module")
def calculator(file: Path) -> Any:
    from sheaf.backends._models.mace.library import mace

    before = torch.get_default_dtype()
    model = torch.load(file, weights_only=False)
    found = mace("mace.calculators.mace").MACECalculator(models=[model], default_dtype="float64")
    torch.set_default_dtype(before)
    return found


HELD = {
    "atoms": [FixAtoms([0, 5])],
    "axes": [FixCartesian([1, 2], [True, False, True])],
    "both": [FixAtoms([0]), FixCartesian([3, 4], [False, False, True]), FixedPlane(6, [1, 0, 0])],
    "line": [FixedLine([0, 1, 2], [0, -2, 0])],
    "scaled": [FixScaled([2, 3], [True, False, False])],
    "all but one": [FixAtoms(range(7))],
}


@pytest.mark.parametrize(("held", "optimizer"), list(zip(HELD, ["fire", "lbfgs", "bfgs"] * 2, strict=True)))
def test_a_relaxation_with_held_atoms_is_that_of_ase(
    held: str, optimizer: str, backend: MACEBackend, calculator: Any
) -> None:
    atoms = constrained(SALT, *HELD[held])
    request = taken(RELAX, atoms, optimizer=optimizer, fmax=1e-3, max_steps=8)
    response = backend.predict(request)
    atoms.calc = calculator
    walk = {"fire": FIRE, "lbfgs": LBFGS, "bfgs": BFGS}[optimizer](atoms, logfile=None)
    converged = walk.run(fmax=1e-3, steps=8)
    assert (response.n_steps, response.converged) == (walk.nsteps, converged)
    np.testing.assert_allclose(response.positions, atoms.positions, atol=1e-6)
    np.testing.assert_allclose(response.energy, atoms.get_potential_energy(), atol=1e-6)
    np.testing.assert_allclose(response.forces, atoms.get_forces(apply_constraint=False), atol=1e-5)
    assert response.max_forces[-1] == pytest.approx(
        np.linalg.norm(atoms.get_forces(), axis=1).max(), abs=1e-5
    )
    flags = np.asarray(request.fixed)
    still = response.positions[flags] == request.positions[flags]
    assert still.all()
    assert not (response.positions == request.positions).all()


def test_the_real_potential_relaxes_a_slab_on_held_layers() -> None:
    from chgnet.model import CHGNetCalculator

    backend = CHGNetBackend()
    backend.load()
    atoms = constrained(slab(), FixAtoms([0, 1]))
    response = backend.predict(taken(RELAX, atoms, fmax=0.05, optimizer="lbfgs"))
    start = atoms.positions.copy()
    atoms.calc = CHGNetCalculator(use_device="cpu")
    walk = LBFGS(atoms, logfile=None)
    walk.run(fmax=0.05)
    assert response.converged
    assert response.n_steps == walk.nsteps
    np.testing.assert_allclose(response.positions, atoms.positions, atol=1e-3)
    assert (response.positions[:2] == start[:2]).all()
    lengths = np.linalg.norm(response.forces, axis=1)
    assert response.max_forces[-1] == pytest.approx(lengths[2:].max(), rel=1e-5)
    assert response.max_forces[-1] <= 0.05 < lengths[:2].max()


def test_a_cell_relaxes_around_atoms_that_keep_their_place_in_it(
    backend: MACEBackend, calculator: Any
) -> None:
    atoms = constrained(SALT, FixAtoms([0, 3, 6]))
    response = backend.predict(taken(RELAX, atoms, relax_cell=True, max_steps=6, fmax=1e-3))
    before = atoms.get_scaled_positions()
    atoms.calc = calculator
    FIRE(FrechetCellFilter(atoms), logfile=None).run(fmax=1e-3, steps=6)
    np.testing.assert_allclose(response.positions, atoms.positions, atol=1e-6)
    np.testing.assert_allclose(response.cell, np.array(atoms.cell), atol=1e-8)
    assert np.abs(np.array(response.cell) - np.array(SALT.cell)).max() > 1e-3
    after = response.to_ase(atoms).get_scaled_positions()
    np.testing.assert_allclose(after[[0, 3, 6]], before[[0, 3, 6]], atol=1e-6)


def test_axes_are_not_held_while_the_cell_moves(backend: MACEBackend) -> None:
    request = taken(RELAX, constrained(SALT, FixCartesian([2], [True, False, False])), relax_cell=True)
    with pytest.raises(Exception, match="cannot serve") as refused:
        backend.check(request)
    assert fault_of(refused.value) == ("unsupported", "/fixed/2")
    (outcome,) = backend.predict_all([request])
    assert fault_of(outcome) == ("unsupported", "/fixed/2")


def test_held_and_free_structures_side_by_side_are_each_as_alone(backend: MACEBackend) -> None:
    requests = [
        taken(RELAX, SALT, max_steps=5, fmax=1e-3),
        taken(RELAX, constrained(SALT, *HELD["both"]), max_steps=5, fmax=1e-3),
        taken(RELAX, constrained(WATER, FixAtoms([0, 1, 2])), max_steps=5, fmax=1e-3),
        taken(RELAX, constrained(SALT, FixAtoms([1])), max_steps=4, relax_cell=True, fmax=1e-3),
    ]
    together = backend.batch_predict(requests)
    for request, outcome in zip(requests, together, strict=True):
        alone = backend.predict(request)
        assert (outcome.n_steps, outcome.converged) == (alone.n_steps, alone.converged)
        np.testing.assert_allclose(outcome.trajectory, alone.trajectory, atol=1e-7)
        np.testing.assert_allclose(outcome.forces, alone.forces, atol=1e-7)
    assert (together[2].converged, together[2].n_steps) == (True, 0)
    assert np.linalg.norm(together[2].forces, axis=1).max() > 1e-3


def moving(atoms: Atoms, seed: int = 3) -> Atoms:
    found = atoms.copy()
    thermalize_momenta(found, 500, rng=np.random.default_rng(seed))
    return found


@pytest.mark.parametrize(("held", "ensemble"), list(zip(HELD, ["nvt", "nve"] * 3, strict=True)))
def test_dynamics_with_held_atoms_are_those_of_ase(
    held: str, ensemble: str, backend: MACEBackend, calculator: Any
) -> None:
    atoms = moving(constrained(SALT, *HELD[held]))
    atoms.set_masses(np.linspace(2, 40, len(atoms)))
    request = taken(MOLECULAR_DYNAMICS, atoms, ensemble=ensemble, n_steps=6, seed=4, record_every=1)
    response = backend.predict(request)
    atoms.set_velocities(request.velocities.astype(np.float64) / units.fs)
    atoms.calc = calculator
    walk: Any = (
        VelocityVerlet(atoms, units.fs)
        if ensemble == "nve"
        else Langevin(
            atoms,
            units.fs,
            temperature_K=300,
            friction=0.01 / units.fs,
            fixcm=False,
            rng=np.random.default_rng(4),
        )
    )
    energies, temperatures, kinetic = [], [], []
    for _ in walk.irun(steps=6):
        energies.append(atoms.get_potential_energy())
        kinetic.append(atoms.get_kinetic_energy())
        temperatures.append(atoms.get_temperature())
    np.testing.assert_allclose(response.positions, atoms.positions, atol=1e-6)
    np.testing.assert_allclose(response.velocities, atoms.get_velocities() * units.fs, atol=1e-7)
    np.testing.assert_allclose(response.energies, energies, atol=1e-6)
    np.testing.assert_allclose(response.kinetic_energies, kinetic, rtol=1e-6)
    np.testing.assert_allclose(response.temperatures, temperatures, rtol=1e-6)
    flags = np.asarray(request.fixed)
    assert (response.positions[flags] == request.positions[flags]).all()
    assert not response.velocities[flags].any()


def test_velocities_that_are_drawn_are_of_what_moves_and_of_its_masses(backend: MACEBackend) -> None:
    atoms = constrained(SALT * (3, 3, 2), FixAtoms(range(70)))
    masses = np.full(len(atoms), 5.0)
    atoms.set_masses(masses)
    response = backend.predict(taken(MOLECULAR_DYNAMICS, atoms, n_steps=1, seed=1, temperature_k=400))
    # 74 atoms: the temperature's standard deviation is 400 K · √(2 / 222) = 38 K.
    assert response.temperatures[0] == pytest.approx(400, abs=120)
    speeds = response.velocities.astype(np.float64) / units.fs
    assert response.kinetic_energies[-1] == pytest.approx(0.5 * (masses[:, None] * speeds**2).sum(), rel=1e-5)
    assert not speeds[:70].any()


def test_dynamics_of_what_is_held_altogether_stand_still(backend: MACEBackend) -> None:
    response = backend.predict(taken(MOLECULAR_DYNAMICS, constrained(WATER, FixAtoms([0, 1, 2])), n_steps=2))
    assert response.temperatures.tolist() == [0, 0]
    assert (response.positions == WATER.positions.astype(np.float32)).all()


def test_velocities_of_their_own_leave_nothing_to_chance_but_the_thermostat(backend: MACEBackend) -> None:
    def answers_repeat(atoms: Atoms, **fields: Any) -> bool:
        return backend.deterministic(taken(MOLECULAR_DYNAMICS, atoms, n_steps=3, **fields))

    assert answers_repeat(moving(WATER), ensemble="nve")
    assert not answers_repeat(moving(WATER))
    assert not answers_repeat(WATER, ensemble="nve")
    assert answers_repeat(WATER, seed=1)


def test_atoms_come_back_as_the_answer_has_them_and_go_on_from_there(file: Path) -> None:
    settings = {"model_id": str(file), "trust_pickle": True, "dtype": "float64"}
    with Sheaf.local([ModelSpec(name="m", backend="mace", backend_kwargs=settings)]) as client:
        materials = client.materials
        atoms = constrained(moving(SALT), FixAtoms([0]), FixCartesian([1], [True, False, False]))
        atoms.set_masses(np.linspace(2, 40, len(atoms)))
        atoms.set_tags(range(8))
        atoms.info["name"] = "salt"
        relaxed = materials.relax(atoms, model="m", max_steps=5)
        still = relaxed.to_ase(atoms)
        np.testing.assert_array_equal(still.positions, relaxed.positions)
        np.testing.assert_array_equal(still.positions[0], atoms.positions[0])
        energy = materials.compute(still, model="m").energy
        assert still.get_potential_energy() == pytest.approx(energy, abs=1e-5)
        assert not still.get_forces()[0].any()
        np.testing.assert_array_equal(still.get_forces(apply_constraint=False), relaxed.forces)
        assert repr(still.constraints) == repr(atoms.constraints)
        assert (still.get_tags().tolist(), still.info) == (list(range(8)), {"name": "salt"})
        np.testing.assert_array_equal(still.get_masses(), atoms.get_masses())

        whole = materials.molecular_dynamics(atoms, model="m", ensemble="nve", n_steps=6)
        half = materials.molecular_dynamics(atoms, model="m", ensemble="nve", n_steps=3).to_ase(atoms)
        assert half.get_kinetic_energy() > 0
        on = materials.molecular_dynamics(half, model="m", ensemble="nve", n_steps=3)
        np.testing.assert_allclose(on.positions, whole.positions, atol=1e-5)
        assert_close(on.to_ase(half).get_kinetic_energy(), whole.kinetic_energies[-1], 1e-5)


def test_a_keyword_stands_in_place_of_what_the_atoms_say(file: Path) -> None:
    settings = {"model_id": str(file), "trust_pickle": True}
    with Sheaf.local([ModelSpec(name="m", backend="mace", backend_kwargs=settings)]) as client:
        atoms = constrained(moving(WATER), FixAtoms([0]))
        atoms.set_masses([16, 2, 2])
        simulate = client.materials.molecular_dynamics
        start: dict[str, Any] = {"model": "m", "n_steps": 1, "temperature_k": 0, "ensemble": "nve"}
        assert simulate(atoms, **start).kinetic_energies[0] > 0
        run = simulate(atoms, **start, fixed=[False, True, False], masses=[1, 1, 1], velocities=None)
        assert run.kinetic_energies[0] == 0
        assert (run.positions == atoms.positions.astype(np.float32)).all(axis=1).tolist() == [
            False,
            True,
            False,
        ]
        speeds = run.velocities.astype(np.float64) / units.fs
        assert run.kinetic_energies[-1] == pytest.approx(0.5 * (speeds**2).sum(), rel=1e-5)
        with pytest.raises(TypeError, match="gives positions; give them once"):
            simulate(atoms, **start, positions=atoms.positions)


def test_positions_far_off_cost_no_precision(file: Path) -> None:
    settings = {"model_id": str(file), "trust_pickle": True, "dtype": "float64"}
    with Sheaf.local([ModelSpec(name="m", backend="mace", backend_kwargs=settings)]) as client:
        near = client.materials.compute(SALT, model="m", compute_stress=True)
        unwrapped = SALT.copy()
        steps = np.random.default_rng(0).integers(-500, 500, (len(SALT), 3))
        unwrapped.positions += steps @ SALT.cell.array
        far = client.materials.compute(unwrapped, model="m", compute_stress=True)
        (listed,) = client.materials.compute(structures=[unwrapped], model="m").results or []
        for forces in (far.forces, listed.forces):
            np.testing.assert_allclose(forces, near.forces, atol=2e-5)
        np.testing.assert_allclose(far.stress, near.stress, atol=1e-6)
        away = WATER.copy()
        away.positions += 5000
        molecule_far = client.materials.compute(away, model="m").forces
        np.testing.assert_allclose(molecule_far, client.materials.compute(WATER, model="m").forces, atol=2e-5)
