"""Relaxation and molecular dynamics on CHGNet, against ASE on the library's own calculator and on physics."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from sheaf import ModelSpec
from sheaf.api.materials import (
    AtomsProgress,
    MolecularDynamicsResponse,
    RelaxResponse,
)
from sheaf.backends._families.atoms.structures import Properties, Structure
from sheaf.backends.chgnet import CHGNetBackend
from sheaf_client import Sheaf
from tests.backends.answers import fault_of
from tests.backends.materials.materials_cases import (
    assert_close,
    assert_same_walk,
    dynamics,
    relaxation,
    shaken,
)

pytest.importorskip("chgnet")
torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.torch,
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore"),
]

SALT = shaken(bulk("NaCl", "rocksalt", a=5.5), by=0.1)
SILICON = shaken(bulk("Si", a=5.4), 1, by=0.1)
WATER = shaken(molecule("H2O"), 2, by=0.1)


@pytest.fixture(scope="module")
def backend() -> CHGNetBackend:
    found = CHGNetBackend()
    found.load()
    return found


@pytest.mark.parametrize("optimizer", ["fire", "lbfgs", "bfgs"])
def test_relaxation_goes_the_way_of_ase_on_the_librarys_calculator(
    optimizer: str, backend: CHGNetBackend
) -> None:
    from ase.optimize import BFGS, FIRE, LBFGS
    from chgnet.model import CHGNetCalculator

    response = backend.predict(relaxation(SILICON, optimizer=optimizer, fmax=0.02))
    atoms = SILICON.copy()
    atoms.calc = CHGNetCalculator(use_device="cpu")
    walk = {"fire": FIRE, "lbfgs": LBFGS, "bfgs": BFGS}[optimizer](atoms, logfile=None)
    walk.run(fmax=0.02)
    assert response.converged
    assert (response.n_steps, response.n_frames) == (walk.nsteps, walk.nsteps + 1)
    np.testing.assert_allclose(response.positions, atoms.positions, atol=1e-3)
    assert_close(response.energy, atoms.get_potential_energy(), 1e-4)
    assert response.max_forces[-1] <= 0.02 < response.max_forces[0]
    assert response.energies[-1] < response.energies[0]
    np.testing.assert_array_equal(response.cell, np.array(SILICON.cell))
    assert response.cells is response.stress is None


def test_a_cell_that_moves_ends_without_stress(backend: CHGNetBackend) -> None:
    response = backend.predict(relaxation(SALT, relax_cell=True, fmax=0.01, optimizer="lbfgs"))
    assert response.converged
    assert np.abs(response.stress).max() < 1e-3
    np.testing.assert_array_equal(response.cells[0], np.array(SALT.cell))
    np.testing.assert_array_equal(response.cells[-1], response.cell)
    volume = abs(np.linalg.det(response.cells[-1]))
    assert volume == pytest.approx(5.68**3 / 4, rel=0.03)  # PBE's rock salt


def test_walks_side_by_side_are_each_as_alone(backend: CHGNetBackend) -> None:
    requests: list[Any] = [
        relaxation(SALT),
        relaxation(WATER, optimizer="bfgs"),
        relaxation(SALT, relax_cell=True, max_steps=4, record_every=3),
        relaxation(bulk("Si")),
    ]
    together = backend.batch_predict(requests)
    for request, outcome in zip(requests, together, strict=True):
        assert_same_walk(outcome, backend.predict(request))
    assert together[1].cell is None
    assert (together[2].converged, together[2].frame_steps) == (False, [0, 3, 4])
    assert (together[3].converged, together[3].n_steps) == (True, 0)


def test_walks_side_by_side_share_their_passes(
    backend: CHGNetBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    potential: Any = backend._potential
    evaluate = potential.evaluate

    def watched(structures: Any, pairs: Any, *, gradient: bool) -> Any:
        sizes.append(len(structures))
        return evaluate(structures, pairs, gradient=gradient)

    monkeypatch.setattr(potential, "evaluate", watched)
    backend.batch_predict([dynamics(atoms, n_steps=3) for atoms in (SALT, SILICON, WATER)])
    assert sizes == [3, 3, 3, 3]


def test_a_walk_that_fails_fails_alone(backend: CHGNetBackend) -> None:
    twice = Atoms("H2", positions=np.zeros((2, 3)))
    wild = dynamics(WATER, velocities=np.full((3, 3), [[1e30], [0], [0]]).astype(np.float32))
    outcomes = backend.predict_all([relaxation(twice), relaxation(SILICON, max_steps=2)])
    assert fault_of(outcomes[0]) == ("unsupported", "/positions_b64")
    assert isinstance(outcomes[1], RelaxResponse)
    bad, good = backend.predict_all([wild, dynamics(SILICON)])
    assert isinstance(good, MolecularDynamicsResponse)
    assert isinstance(bad, Exception | MolecularDynamicsResponse)


@pytest.mark.parametrize(
    ("request_", "fault"),
    [
        (relaxation(WATER, relax_cell=True, cell=np.eye(3).tolist()), ("unsupported", "/relax_cell")),
        (relaxation(Atoms("Am", cell=[9, 9, 9], pbc=True)), ("unsupported", "/atomic_numbers/0")),
        (dynamics(SALT, n_steps=1_000_000, record_every=1), None),
        (dynamics(SALT * (2, 2, 2), n_steps=1_000_000, record_every=1), ("out_of_range", "/record_every")),
    ],
    ids=["a cell that moves and none", "an element unknown", "a long walk", "too much to keep"],
)
def test_what_cannot_be_walked_is_refused(
    request_: Any, fault: tuple[str, str] | None, backend: CHGNetBackend
) -> None:
    if fault is None:
        backend.check(request_)
        return
    with pytest.raises(Exception, match="cannot serve") as refused:
        backend.check(request_)
    assert fault_of(refused.value) == fault


def test_streams_tell_each_step_and_end_in_the_answer(backend: CHGNetBackend) -> None:
    request = relaxation(SALT, max_steps=5, fmax=1e-4)
    *events, last = backend.stream(request)
    assert_same_walk(last, backend.predict(request))
    assert [(event.step, event.total_steps) for event in events] == [(i, 5) for i in range(1, 6)]
    for event, energy, position in zip(events, last.energies[1:], last.trajectory[1:], strict=True):
        assert isinstance(event, AtomsProgress)
        assert event.energy == energy
        np.testing.assert_array_equal(event.positions, position)
        assert event.temperature_k is event.time_fs is None
    *events, last = backend.stream(dynamics(SALT, n_steps=4, timestep_fs=0.5))
    assert [event.time_fs for event in events] == [0.5, 1.0, 1.5, 2.0]
    assert events[-1].temperature_k == pytest.approx(last.temperatures[-1], rel=1e-6)


def test_energy_is_kept_where_nothing_takes_it(backend: CHGNetBackend) -> None:
    request = dynamics(SALT * (2, 1, 1), ensemble="nve", n_steps=40, record_every=1, temperature_k=500)
    response = backend.predict(request)
    total = response.energies + response.kinetic_energies
    assert np.ptp(response.energies) > 0.05
    assert np.ptp(total) < 1e-3
    assert response.frame_steps == list(range(41))


def test_a_trajectory_goes_on_from_its_velocities(backend: CHGNetBackend) -> None:
    whole = backend.predict(dynamics(SALT, ensemble="nve", n_steps=8))
    half = backend.predict(dynamics(SALT, ensemble="nve", n_steps=4))
    rest = SALT.copy()
    rest.positions = half.positions
    on = backend.predict(dynamics(rest, ensemble="nve", n_steps=4, velocities=half.velocities))
    np.testing.assert_allclose(on.positions, whole.positions, atol=1e-5)
    np.testing.assert_allclose(on.velocities, whole.velocities, atol=1e-6)


def test_the_thermostat_and_the_seed_do_what_they_say(backend: CHGNetBackend) -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    settings = {"temperature_k": 800, "friction_per_fs": 0.5, "n_steps": 60, "record_every": 1}
    response = backend.predict(dynamics(atoms, **settings))
    assert 500 < response.temperatures.mean() < 1100
    assert_same_walk(backend.predict(dynamics(atoms, **settings)), response)
    other = backend.predict(dynamics(atoms, **settings, seed=2))
    assert np.abs(other.positions - response.positions).max() > 0.01


def test_chance_decides_over_velocities_that_are_drawn_and_the_thermostat(backend: CHGNetBackend) -> None:
    given = {"velocities": np.zeros((len(SALT), 3)), "seed": None}
    assert backend.deterministic(dynamics(SALT))
    assert not backend.deterministic(dynamics(SALT, seed=None))
    assert not backend.deterministic(dynamics(SALT, seed=None, ensemble="nve"))
    assert not backend.deterministic(dynamics(SALT, **given))
    assert backend.deterministic(dynamics(SALT, **given, ensemble="nve"))
    assert backend.deterministic(relaxation(SALT))
    cold = dynamics(SALT, seed=None, temperature_k=0, n_steps=4)
    assert backend.deterministic(cold)
    np.testing.assert_array_equal(backend.predict(cold).positions, backend.predict(cold).positions)


def test_relaxing_and_simulating_in_this_process() -> None:
    with Sheaf.local([ModelSpec(name="m", backend="chgnet")]) as client:
        relaxed = client.materials.relax(SALT, model="m", fmax=0.05)
        assert relaxed.converged
        moved = relaxed.to_ase(SALT)
        assert np.linalg.norm(moved.get_forces(), axis=1).max() <= 0.05
        with client.materials.molecular_dynamics_stream(SALT, model="m", n_steps=3, seed=1) as stream:
            steps = [event.step for event in stream if isinstance(event, AtomsProgress)]
        assert steps == [1, 2, 3]
        assert stream.final().n_steps == 3


def test_what_is_recorded_takes_the_memory_of_the_answer() -> None:
    from sheaf.backends._families.atoms.trajectories import follow

    atoms = SALT * (4, 4, 4)
    request = dynamics(atoms, n_steps=100, record_every=1)

    def springs(structure: Structure) -> Properties:
        away = structure.positions - atoms.positions
        return Properties(float((away**2).sum()), -2 * away)

    follow(dynamics(atoms, n_steps=1), springs, lambda _: None, [])  # what is made once is made now
    tracemalloc.start()
    try:
        response = follow(request, springs, lambda _: None, [])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert response.trajectory.shape == (101, 128, 3)
    assert response.trajectory.nbytes < peak < 3 * response.trajectory.nbytes
