"""The backend `mace` against the library's own calculator, on a tiny model of its architecture."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from sheaf.api.materials import MaterialsRequest, MaterialsResponse
from sheaf.backends.mace import MACEBackend, convert
from tests.backends.answers import fault_of
from tests.backends.conformance import BackendConformance
from tests.backends.materials.checkpoints import make_mace
from tests.backends.materials.materials_cases import (
    EXEMPT,
    ask,
    assert_close,
    assert_forces_are_slopes,
    assert_stress_is_a_slope,
    assert_symmetries,
    crystals,
    molecules,
    properties,
    slab,
    summed,
)

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.torch,
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore"),
    # Not importorskip: on import the library changes the environment.
    pytest.mark.skipif(find_spec("mace") is None, reason="mace-torch is not installed"),
]


@pytest.fixture(scope="session")
def pickled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_mace(tmp_path_factory.mktemp("mace") / "tiny.model")


@pytest.fixture(scope="session")
def folder(pickled: Path) -> Path:
    convert(pickled, pickled.parent / "tiny")
    return pickled.parent / "tiny"


def load(path: Path, **settings: Any) -> MACEBackend:
    backend = MACEBackend(str(path), **settings)
    backend.load()
    return backend


@pytest.fixture(scope="module")
def backend(folder: Path) -> MACEBackend:
    return load(folder)


@pytest.fixture(scope="module")
def precise(folder: Path) -> MACEBackend:
    return load(folder, default_dtype="float64")


@cache
def calculator(pickled: Path, dtype: str) -> Any:
    from sheaf.backends._models.mace.library import mace

    before = torch.get_default_dtype()
    model = torch.load(pickled, weights_only=False)
    found = mace("mace.calculators.mace").MACECalculator(models=[model], default_dtype=dtype)
    torch.set_default_dtype(before)
    return found


def direct(atoms: Atoms, pickled: Path, dtype: str = "float32") -> dict[str, Any]:
    """Energy, forces and stress (Voigt) by the library's calculator for ASE."""
    atoms = atoms.copy()
    atoms.calc = calculator(pickled, dtype)
    found = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
    return {**found, "stress": atoms.get_stress() if atoms.pbc.all() else None}


class TestMACE(BackendConformance):
    backend_class = MACEBackend
    unit = 1.0
    needed_files = ("config.json", "model.safetensors")
    needed_weights = (("model.safetensors", "interactions.0.linear.weight"),)
    # TorchScript never forgets the type of a module.
    kept_by_libraries = ("ConcreteModuleType",)
    exempt: ClassVar[Mapping[str, str]] = EXEMPT

    @pytest.fixture(scope="class")
    def settings(self, folder: Path) -> dict[str, Any]:
        return {"model_id": folder}

    @pytest.fixture(scope="class")
    def neighbor(self, folder: Path) -> dict[str, Any]:
        return {"model_id": folder, "dtype": "float64"}

    @pytest.fixture(scope="class")
    def requests(self) -> list[MaterialsRequest]:
        mixed = [*crystals(), *molecules(), slab()]
        alone = [ask(atoms, compute_forces=i % 3 > 0) for i, atoms in enumerate(mixed)]
        return [*alone, ask(crystals()[:3], compute_stress=True), ask(molecules())]

    @pytest.fixture(scope="class")
    def direct(self, pickled: Path) -> Callable[[MaterialsRequest], dict[str, Any]]:
        return lambda request: summed(request, lambda atoms: direct(atoms, pickled))

    @pytest.fixture(scope="class")
    def refused(self) -> list[tuple[MaterialsRequest, str, str]]:
        strange = Atoms("CuTh", positions=np.eye(3)[:2] * 3)
        return [(ask(strange), "unsupported", "/atomic_numbers/1")]

    @pytest.fixture(scope="class")
    def poison(self, refused: list[tuple[Any, str, str]]) -> list[tuple[MaterialsRequest, str, str]]:
        return [*refused, (ask(Atoms("H2", positions=np.zeros((2, 3)))), "unsupported", "/positions_b64")]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-5), ("float64", 1e-7)])
def test_a_mixed_batch_equals_the_librarys_single_calls(
    dtype: str, tolerance: float, folder: Path, pickled: Path
) -> None:
    backend = load(folder, dtype=dtype)
    mixed = [*crystals(), *molecules(), slab()]
    requests = [ask(atoms, compute_stress=bool(atoms.pbc.all())) for atoms in mixed]
    for atoms, response in zip(mixed, backend.batch_predict(requests), strict=True):
        assert isinstance(response, MaterialsResponse), response
        expected = direct(atoms, pickled, dtype)
        assert_close(response.energy, expected["energy"], tolerance)
        assert_close(response.forces, expected["forces"], tolerance)
        assert (response.stress is None) == (expected["stress"] is None)
        if response.stress is not None:
            assert_close(response.stress, expected["stress"], tolerance / 10)


KINDS: dict[str, dict[str, Any]] = {
    "high orders": {"hidden_irreps": "8x0e+8x1o+8x2e", "max_ell": 3, "correlation": 3},
    "degree 1": {"correlation": 1},
    "degree 4": {"correlation": 4, "hidden_irreps": "4x0e", "max_ell": 1},
    "residual from the first layer": {"interaction_cls_first": "RealAgnosticResidualInteractionBlock"},
    "density": {
        "interaction_cls": "RealAgnosticDensityResidualInteractionBlock",
        "interaction_cls_first": "RealAgnosticDensityInteractionBlock",
        "pair_repulsion": True,
        "distance_transform": "Agnesi",
    },
    "non-linear": {
        "interaction_cls": "RealAgnosticResidualNonLinearInteractionBlock",
        "interaction_cls_first": "RealAgnosticResidualNonLinearInteractionBlock",
        "edge_irreps": "8x0e+8x1o",
        "apply_cutoff": False,
    },
    "one for all elements": {"use_agnostic_product": True},
}


@pytest.mark.parametrize("kind", KINDS)
def test_layers_in_a_cheaper_order_equal_the_librarys(kind: str, tmp_path: Path) -> None:
    from sheaf.backends._models.mace.edges import Convolution
    from sheaf.backends._models.mace.elements import SymmetricContraction
    from sheaf.backends._models.mace.library import mace

    o3, classes = mace("e3nn.o3"), mace("mace.modules").interaction_classes
    settings = {
        name: o3.Irreps(value) if name.endswith("irreps") else classes.get(value, value)
        for name, value in KINDS[kind].items()
    }
    path = make_mace(tmp_path / "m.model", **settings)
    backend = load(path, trust_pickle=True, dtype="float64")
    modules = {type(module) for module in backend._potential._model.modules()}
    assert {Convolution, SymmetricContraction} <= modules
    mixed = [*crystals()[:5], molecules()[1]]
    responses = backend.batch_predict([ask(atoms, compute_stress=bool(atoms.pbc.all())) for atoms in mixed])
    for atoms, response in zip(mixed, responses, strict=True):
        expected = direct(atoms, path, "float64")
        # The library's calculator takes some of its constants in float32.
        assert_close(response.energy, expected["energy"], 1e-7)
        assert_close(response.forces, expected["forces"], 1e-6)
        if response.stress is not None:
            assert_close(response.stress, expected["stress"], 1e-7)


def test_a_trusted_pickle_and_what_it_was_converted_to_are_one_model(
    backend: MACEBackend, pickled: Path
) -> None:
    trusted = load(pickled, trust_pickle=True)
    for atoms in crystals()[:3]:
        one, other = (each.predict(ask(atoms, compute_stress=True)) for each in (backend, trusted))
        assert one.energy == other.energy
        assert np.array_equal(one.forces, other.forces)
        assert np.array_equal(one.stress, other.stress)


@pytest.mark.parametrize("atoms", [crystals()[2], slab(), molecules()[1]], ids=str)
def test_forces_are_slopes_of_the_energy(atoms: Atoms, precise: MACEBackend) -> None:
    assert_forces_are_slopes(precise, atoms, 1e-5)


def test_stress_is_the_slope_by_strain(precise: MACEBackend) -> None:
    assert_stress_is_a_slope(precise, crystals()[2], 1e-6)


@pytest.mark.parametrize("atoms", [crystals()[2], molecules()[1]], ids=str)
def test_turned_moved_and_renumbered_atoms_are_the_same(atoms: Atoms, precise: MACEBackend) -> None:
    # The library holds its spherical harmonics in float32 constants.
    assert_symmetries(precise, atoms, 1e-6)


def test_the_stress_of_a_slab_is_per_volume_of_the_cell_that_was_given(precise: MACEBackend) -> None:
    low, high = slab(), slab()
    low.set_cell([*low.cell[:2], [0, 0, 20]])
    high.set_cell([*high.cell[:2], [0, 0, 40]])
    found = [properties(precise, atoms).stress for atoms in (low, high)]
    assert found[0] is not None
    assert np.abs(found[0]).max() > 1e-3
    np.testing.assert_allclose(found[0], 2 * np.asarray(found[1]), atol=1e-9)
    assert properties(precise, slab()).stress is None


def test_one_atom_alone_has_the_energy_of_its_element(backend: MACEBackend, pickled: Path) -> None:
    for atoms in (Atoms("Fe"), Atoms("Fe", cell=[20, 20, 20], pbc=True)):
        response = backend.predict(ask(atoms, compute_stress=bool(atoms.pbc.all())))
        assert_close(response.energy, direct(atoms, pickled)["energy"])
        assert response.forces is not None
        assert response.forces.tolist() == [[0, 0, 0]]
    assert response.stress is not None
    assert not response.stress.any()


def test_heads_are_told_apart_by_their_names(tmp_path: Path) -> None:
    energies = np.stack([np.linspace(-1, -3, 89), np.linspace(-5, -9, 89)])
    scales = {"atomic_inter_scale": [400.0, 200.0], "atomic_inter_shift": [0.1, 0.3]}
    path = make_mace(tmp_path / "m.model", heads=["pbe", "scan"], atomic_energies=energies, **scales)
    convert(path, tmp_path / "m")
    one, other = load(tmp_path / "m", head="pbe"), load(tmp_path / "m", head="scan")
    again = load(path, trust_pickle=True, head="scan")
    request = ask(crystals()[2])
    assert abs(one.predict(request).energy - other.predict(request).energy) > 1
    assert again.predict(request).energy == other.predict(request).energy
    with pytest.raises(ValueError, match="pbe, scan"):
        load(tmp_path / "m")
    with pytest.raises(ValueError, match=r"'b3lyp'.*pbe, scan"):
        load(tmp_path / "m", head="b3lyp")


def test_dispersion_is_added_as_the_library_adds_it(folder: Path, pickled: Path) -> None:
    calculators = pytest.importorskip("torch_dftd.torch_dftd3_calculator")
    from ase.units import Bohr

    mixed = [crystals()[2], molecules()[1]]
    settings = {"damping": "bj", "xc": "pbe", "cutoff": 40.0 * Bohr, "dtype": torch.float32}
    d3 = calculators.TorchDFTD3Calculator(device="cpu", **settings)
    backend = load(folder, dispersion=True)
    answers = backend.batch_predict([ask(a, compute_stress=bool(a.pbc.all())) for a in mixed])
    for atoms, response in zip(mixed, answers, strict=True):
        bare = direct(atoms, pickled)
        atoms.calc = d3
        assert abs(atoms.get_potential_energy()) > 1e-2
        assert_close(response.energy, bare["energy"] + atoms.get_potential_energy())
        assert_close(response.forces, bare["forces"] + atoms.get_forces())
        if atoms.pbc.all():
            assert_close(response.stress, bare["stress"] + atoms.get_stress(), 2e-6)


@pytest.mark.parametrize(
    ("atoms", "other", "path"),
    [
        (Atoms("CuTh", positions=np.eye(3)[:2] * 3), {}, "/atomic_numbers/1"),
        ([molecule("H2O"), Atoms("CuTh", positions=np.eye(3)[:2] * 3)], {}, "/structures/1/atomic_numbers/1"),
        (molecule("H2O"), {"compute_stress": True}, "/compute_stress"),
        (Atoms("H2", positions=np.zeros((2, 3))), {}, "/positions_b64"),
        (Atoms("H", cell=[[1, 0, 0], [2, 0, 0], [0, 0, 3]], pbc=True), {}, "/cell"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_the_model_cannot_do_is_refused(
    atoms: Any, other: dict[str, Any], path: str, backend: MACEBackend
) -> None:
    outcome, neighbour = backend.predict_all([ask(atoms, **other), ask(bulk("Si"))])
    assert isinstance(neighbour, MaterialsResponse)
    assert fault_of(outcome) == ("unsupported", path)


def test_models_that_are_not_there_or_not_whole_are_told(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    with pytest.raises(ValueError, match="model_id"):
        MACEBackend().load()
    (tmp_path / "config.json").write_text("{}")
    weights = load_file(folder / "model.safetensors")
    del weights["interactions.0.linear.weight"]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="format"):
        load(tmp_path)
    with pytest.raises(ValueError, match="bfloat16"):
        load(folder, dtype="bfloat16")


def test_a_converted_model_is_text_and_numbers(folder: Path) -> None:
    content = json.loads((folder / "config.json").read_text())
    assert content["model"]["interaction_cls"] == "RealAgnosticResidualInteractionBlock"
    assert content["model"]["hidden_irreps"] == "8x0e+8x1o"
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_older_spellings_of_the_settings_work() -> None:
    backend = MACEBackend(model="m", default_dtype="float64", device="cpu", dispersion=True)
    assert (backend.model_id, backend.dtype, backend.dispersion) == ("m", "float64", True)
    with pytest.raises(TypeError, match="model_id"):
        MACEBackend("m", model="other")


def test_nothing_global_changes(folder: Path) -> None:
    """In a process of its own, where the library is imported for the first time."""
    code = f"""
import os, torch, numpy as np
def state():
    return (torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads(),
            torch.random.get_rng_state().tolist(), np.random.get_state()[1].tolist(), dict(os.environ))
before = state()
from sheaf.backends.mace import MACEBackend
backend = MACEBackend({str(folder)!r}, dtype="float64")
backend.load()
backend.warm_up()
print([one == other for one, other in zip(before, state())])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == str([True] * 6), done.stdout
    assert "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD" not in os.environ
