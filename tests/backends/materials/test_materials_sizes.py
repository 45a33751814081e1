"""Finite numbers that no structure has: refused with their place before a model or a search meets them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from sheaf import ModelSpec
from sheaf.api.materials import MaterialsResponse, MolecularDynamicsRequest, RelaxRequest
from sheaf.backends.chgnet import CHGNetBackend
from sheaf_client import Sheaf
from sheaf_client.errors import InvalidRequestError
from tests.backends.answers import fault_of
from tests.backends.materials.materials_cases import ask, assert_close, assert_equal, fields, shaken

pytest.importorskip("chgnet")
torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.torch,
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore"),
]

SALT = shaken(bulk("NaCl", "rocksalt", a=5.6))
WATER = shaken(molecule("H2O"), 1)


@pytest.fixture(scope="module")
def backend() -> CHGNetBackend:
    found = CHGNetBackend()
    found.load()
    return found


@pytest.fixture(scope="module")
def client() -> Iterator[Sheaf]:
    with Sheaf.local([ModelSpec(name="m", backend="chgnet")], model="m", timeout=20) as found:
        yield found


def placed(atoms: Atoms, **changes: Any) -> Atoms:
    """These atoms with other positions, or another cell."""
    atoms = atoms.copy()
    if "positions" in changes:
        atoms.positions = changes["positions"]
    if "cell" in changes:
        atoms.set_cell(changes["cell"])
    return atoms


def absurd() -> Iterator[Any]:
    for size in (1e6, 1e12, 1e30):
        yield pytest.param(placed(WATER, positions=WATER.positions * size), "/positions_b64")
        yield pytest.param(placed(SALT, positions=SALT.positions + size), "/positions_b64")
    for size in (1e-300, 1e-30, 1e-3, 1e6, 1e30, 1e300):
        yield pytest.param(placed(SALT, cell=SALT.cell.array * size), "/cell")
        yield pytest.param(placed(SALT, cell=SALT.cell.array * [[size], [1], [1]]), "/cell")
        yield pytest.param(placed(WATER, cell=np.eye(3) * size), "/cell")


@pytest.mark.parametrize(("atoms", "path"), absurd())
def test_sizes_that_no_structure_has_are_refused_beside_others(
    atoms: Atoms, path: str, backend: CHGNetBackend
) -> None:
    good = ask(SALT)
    outcome, listed, neighbour = backend.predict_all([ask(atoms), ask([WATER, atoms]), good])
    assert fault_of(outcome)[1] == path
    assert fault_of(listed)[1] == f"/structures/1{path}"
    assert_equal(neighbour, backend.predict(good))
    body: dict[str, Any] = {"model_name": "m", **fields(atoms)}
    for walk in (RelaxRequest.model_validate(body), MolecularDynamicsRequest(**body, n_steps=1)):
        with pytest.raises(InvalidRequestError) as refused:
            backend.check(walk)
        assert fault_of(refused.value)[1] == path


def test_cells_as_flat_as_float64_allows_are_still_told_flat(backend: CHGNetBackend) -> None:
    flat = placed(SALT, cell=[[1, 0, 0], [1, 1e-9, 0], [0, 0, 1]])
    assert fault_of(backend.predict_all([ask(flat)])[0]) == ("unsupported", "/cell")


@pytest.mark.parametrize("cells", [1, 100, 1000])
def test_a_crystal_is_the_same_however_many_cells_away(cells: int, backend: CHGNetBackend) -> None:
    near = backend.predict(ask(SALT))
    away = placed(SALT, positions=SALT.positions + [cells, -2 * cells, 3 * cells] @ SALT.cell.array)
    far = backend.predict(ask(away))
    # Float32 on the wire moves the atoms by this much.
    moved = float(np.spacing(np.float32(np.abs(away.positions).max())))
    assert isinstance(far, MaterialsResponse)
    assert_close(far.forces, near.forces, 1e-4 + 30 * moved)


def test_a_cell_that_is_long_and_askew_takes_no_room(backend: CHGNetBackend) -> None:
    long = placed(bulk("Si"), cell=bulk("Si").cell.array * [[1e4], [1], [1]])
    wide = placed(bulk("Si"), cell=bulk("Si").cell.array * [[50], [1], [1]])
    assert_close(backend.predict(ask(long)).energy, backend.predict(ask(wide)).energy)


@pytest.mark.parametrize("speed", [3e3, 1e10, 1e38])
def test_nothing_starts_out_faster_than_light(speed: float, client: Sheaf) -> None:
    velocities = np.full((3, 3), [[speed], [0], [0]]).astype(np.float32)
    with pytest.raises(InvalidRequestError) as refused:
        client.materials.molecular_dynamics(WATER, n_steps=3, velocities=velocities)
    assert fault_of(refused.value) == ("out_of_range", "/velocities_b64")


@pytest.mark.parametrize(
    "wild",
    [
        {"velocities": np.full((3, 3), [[1000.0], [0], [-1000]]).astype(np.float32), "timestep_fs": 100},
        {"temperature_k": 1e5, "masses": [1e-3] * 3, "timestep_fs": 100},
    ],
    ids=["fast", "light"],
)
def test_atoms_that_fly_apart_on_the_way_are_the_steps_fault(wild: dict[str, Any], client: Sheaf) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        client.materials.molecular_dynamics(WATER, n_steps=50, seed=0, **wild)
    code, path = fault_of(refused.value)
    assert (code, path) == ("out_of_range", "/timestep_fs")
    assert "shorter" in refused.value.errors[0].message
    stream = client.materials.molecular_dynamics_stream(WATER, n_steps=50, seed=0, **wild)
    with stream, pytest.raises(InvalidRequestError) as refused:
        list(stream)
    assert fault_of(refused.value) == (code, path)


def test_atoms_with_masses_at_their_bounds_are_simulated(client: Sheaf) -> None:
    for mass in (1e-3, 1e6):
        found = client.materials.molecular_dynamics(
            SALT, n_steps=2, seed=0, masses=[mass] * 2, timestep_fs=1e-3, temperature_k=10
        )
        assert np.isfinite(found.velocities).all()
