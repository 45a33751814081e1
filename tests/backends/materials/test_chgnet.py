"""The backend `chgnet` against the library's own calculator, on the trained weights that come with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from sheaf.api.materials import MaterialsRequest, MaterialsResponse
from sheaf.backends.chgnet import CHGNetBackend
from sheaf_client.errors import InvalidRequestError
from tests.backends.answers import fault_of
from tests.backends.conformance import CHECKPOINT_CHECKS, BackendConformance
from tests.backends.materials.materials_cases import (
    EXEMPT,
    ask,
    assert_close,
    assert_equal,
    assert_forces_are_slopes,
    assert_stress_is_a_slope,
    assert_symmetries,
    crystals,
    molecules,
    properties,
    slab,
    summed,
)

pytest.importorskip("chgnet")
torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.torch,
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore"),
]

#: The library rounds fractional coordinates to float32; the backend does not, and differs by that.
ROUNDED = 5e-5


def load(*arguments: Any, **settings: Any) -> CHGNetBackend:
    backend = CHGNetBackend(*arguments, **settings)
    backend.load()
    return backend


@pytest.fixture(scope="module")
def backend() -> CHGNetBackend:
    return load()


@pytest.fixture(scope="module")
def precise() -> CHGNetBackend:
    return load(dtype="float64")


@cache
def shipped(name: str) -> Any:
    from chgnet.model import CHGNet

    return CHGNet.load(model_name=name, use_device="cpu", verbose=False)


def direct(atoms: Atoms, model: Any = None) -> dict[str, Any]:
    """Energy, forces and stress (Voigt) by the library's calculator for ASE."""
    from ase.stress import full_3x3_to_voigt_6_stress
    from chgnet.model import CHGNetCalculator

    atoms = atoms.copy()
    atoms.calc = CHGNetCalculator(model or shipped("0.3.0"), use_device="cpu")
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    stress = full_3x3_to_voigt_6_stress(atoms.calc.results["stress"])
    return {"energy": energy, "forces": forces, "stress": stress}


def assert_as_direct(response: Any, expected: dict[str, Any]) -> None:
    assert isinstance(response, MaterialsResponse), response
    assert_close(response.energy, expected["energy"])
    assert_close(response.forces, expected["forces"], ROUNDED)
    assert_close(response.stress, expected["stress"], ROUNDED / 10)


class TestCHGNet(BackendConformance):
    backend_class = CHGNetBackend
    tolerance = ROUNDED
    unit = 1.0
    exempt: ClassVar[Mapping[str, str]] = {
        **EXEMPT,
        **dict.fromkeys(CHECKPOINT_CHECKS[1:], "a checkpoint is one file, and is read whole or not at all"),
    }

    @pytest.fixture(scope="class")
    def settings(self) -> dict[str, Any]:
        return {}

    @pytest.fixture(scope="class")
    def neighbor(self) -> dict[str, Any]:
        return {"model_id": "r2scan"}

    @pytest.fixture(scope="class")
    def requests(self) -> list[MaterialsRequest]:
        mixed = [*crystals(), *molecules(), slab()]
        alone = [ask(atoms, compute_forces=i % 3 > 0) for i, atoms in enumerate(mixed)]
        return [*alone, ask(crystals()[:3], compute_stress=True), ask(molecules())]

    @pytest.fixture(scope="class")
    def direct(self) -> Callable[[MaterialsRequest], dict[str, Any]]:
        """The library takes cells that repeat along all three vectors alone."""
        return lambda request: summed(request, direct, lambda atoms: bool(atoms.pbc.all()))

    @pytest.fixture(scope="class")
    def refused(self) -> list[tuple[MaterialsRequest, str, str]]:
        strange = Atoms("CuAm", positions=np.eye(3)[:2] * 3)
        return [(ask(strange), "unsupported", "/atomic_numbers/1")]

    @pytest.fixture(scope="class")
    def poison(self, refused: list[tuple[Any, str, str]]) -> list[tuple[MaterialsRequest, str, str]]:
        return [*refused, (ask(Atoms("H2", positions=np.zeros((2, 3)))), "unsupported", "/positions_b64")]


def test_a_batch_of_crystals_equals_the_librarys_single_calls(backend: CHGNetBackend) -> None:
    outcomes = backend.batch_predict([ask(atoms, compute_stress=True) for atoms in crystals()])
    for atoms, response in zip(crystals(), outcomes, strict=True):
        assert_as_direct(response, direct(atoms))
        assert response.forces.shape == (len(atoms), 3)
        assert response.metadata.warnings == []


@pytest.mark.parametrize("name", ["r2scan", "0.2.0"])
def test_the_other_shipped_models_equal_the_librarys(name: str) -> None:
    found = load(model=name).predict(ask(crystals()[2], compute_stress=True))
    assert_as_direct(found, direct(crystals()[2], shipped(name)))


@pytest.mark.parametrize(
    "settings",
    [
        {"mlp_first": False, "read_out": "ave"},
        {"mlp_first": False, "read_out": "attn"},
        {"update_angle": False, "gMLP_norm": "batch", "conv_norm": "layer", "angle_layer_hidden_dim": 8},
        {"update_bond": False, "is_intensive": False, "composition_model": None, "final_mlp": "gated"},
    ],
)
def test_any_architecture_loads_from_a_file(settings: dict[str, Any], tmp_path: Path) -> None:
    from chgnet.model import CHGNet

    sizes = {"atom_fea_dim": 16, "bond_fea_dim": 16, "angle_fea_dim": 16, "atom_conv_hidden_dim": 16}
    more = {"bond_conv_hidden_dim": 16, "n_conv": 3, "mlp_hidden_dims": [16, 16], "num_radial": 9}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CHGNet(**{**sizes, **more, "num_angular": 9, **settings}).eval()
    torch.save({"model": model.as_dict()}, tmp_path / "tiny.pth.tar")
    backend = load(str(tmp_path / "tiny.pth.tar"))
    for atoms in crystals()[2:4]:
        assert_as_direct(backend.predict(ask(atoms, compute_stress=True)), direct(atoms, model))


def test_silicon_is_where_it_is_in_nature(backend: CHGNetBackend) -> None:
    """Energy per atom and lattice constant of DFT (PBE): -5.42 eV, 5.47 Å."""
    constants = np.linspace(5.3, 5.6, 13)
    answer = backend.predict(ask([bulk("Si", a=constant) for constant in constants]))
    assert answer.results is not None
    energies = [result.energy / 2 for result in answer.results]
    assert abs(constants[int(np.argmin(energies))] - 5.47) < 0.05
    assert abs(min(energies) + 5.42) < 0.15


def test_many_structures_of_one_request_are_each_as_alone(backend: CHGNetBackend) -> None:
    answer = backend.predict(ask(crystals(), compute_stress=True))
    assert answer.forces is answer.stress is None
    assert answer.n_atoms == sum(map(len, crystals()))
    results = answer.results or []
    assert_close(answer.energy, sum(result.energy for result in results))
    for atoms, result in zip(crystals(), results, strict=True):
        alone = backend.predict(ask(atoms, compute_stress=True))
        assert_close(result.energy, alone.energy)
        assert_close(result.forces, alone.forces)
        assert_close(result.stress, alone.stress)
        assert result.n_atoms == len(atoms)


def test_passes_keep_their_bound_and_change_nothing(
    backend: CHGNetBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [ask(crystals()), ask(molecules()), *(ask(atoms) for atoms in crystals())]
    expected = backend.batch_predict(requests)
    small = load(pass_cost=600)
    passes: list[list[float]] = []
    potential: Any = small._potential
    evaluate = potential.evaluate

    def watched(structures: Any, pairs: Any, *, gradient: bool) -> Any:
        passes.append([2 * len(p) + len(s) for s, p in zip(structures, pairs, strict=True)])
        return evaluate(structures, pairs, gradient=gradient)

    monkeypatch.setattr(potential, "evaluate", watched)
    for outcome, answer in zip(small.batch_predict(requests), expected, strict=True):
        assert_equal(outcome, answer)
    assert all(len(costs) == 1 or sum(costs) <= 600 for costs in passes)
    assert 3 < len(passes) < sum(map(len, passes))


@pytest.mark.parametrize("atoms", [*crystals()[1:5:2], slab(), molecules()[0]], ids=str)
def test_forces_are_slopes_of_the_energy(atoms: Atoms, precise: CHGNetBackend) -> None:
    assert_forces_are_slopes(precise, atoms, 2e-6)


@pytest.mark.parametrize("atoms", crystals()[1:3], ids=str)
def test_stress_is_the_slope_by_strain(atoms: Atoms, precise: CHGNetBackend) -> None:
    assert_stress_is_a_slope(precise, atoms, 1e-7)


@pytest.mark.parametrize("atoms", [crystals()[2], crystals()[4], molecules()[1]], ids=str)
def test_turned_moved_and_renumbered_atoms_are_the_same(atoms: Atoms, precise: CHGNetBackend) -> None:
    assert_symmetries(precise, atoms, 1e-9)


def test_single_precision_is_double_precision_to_its_digits(
    backend: CHGNetBackend, precise: CHGNetBackend
) -> None:
    for atoms in crystals():
        single, double = properties(backend, atoms), properties(precise, atoms)
        assert_close(single.energy, double.energy)
        assert_close(single.forces, double.forces)
        assert_close(single.stress, double.stress)


def test_two_cells_have_twice_the_energy_of_one(precise: CHGNetBackend) -> None:
    atoms = crystals()[2]
    double = properties(precise, atoms * (1, 1, 2))
    np.testing.assert_allclose(double.energy, 2 * properties(precise, atoms).energy, atol=1e-9)
    np.testing.assert_allclose(double.stress, properties(precise, atoms).stress, atol=1e-10)


def test_a_molecule_is_as_in_a_box_where_nothing_repeats(backend: CHGNetBackend) -> None:
    (atoms,) = molecules()[1:2]
    boxed = atoms.copy()
    boxed.set_cell([30, 30, 30])
    expected = direct(boxed)
    for case in (atoms, boxed):
        response = backend.predict(ask(case))
        assert_close(response.energy, expected["energy"])
        assert_close(response.forces, expected["forces"], ROUNDED)
        assert "trained on crystals" in response.metadata.warnings[0]


def test_a_slab_is_as_in_a_cell_with_room_above(backend: CHGNetBackend) -> None:
    atoms = slab()
    roomy = atoms.copy()
    roomy.set_cell([*atoms.cell[:2], [0.0, 0.0, 20.0]])
    expected = direct(roomy)
    for case in (atoms, roomy):
        response = backend.predict(ask(case))
        assert_close(response.energy, expected["energy"])
        assert_close(response.forces, expected["forces"], 2 * ROUNDED)
    stress = backend.predict(ask(roomy, compute_stress=True)).stress
    assert_close(stress, expected["stress"], ROUNDED / 10)


def test_one_atom_alone_feels_nothing(backend: CHGNetBackend) -> None:
    for atoms in (Atoms("Fe"), Atoms("Fe", cell=[20, 20, 20], pbc=True)):
        response = backend.predict(ask(atoms))
        assert response.forces is not None
        assert response.forces.tolist() == [[0, 0, 0]]
        assert "1 atom has no neighbour" in response.metadata.warnings[-1]
    assert backend.predict(ask(bulk("Fe"))).metadata.warnings == []


def test_energies_alone_are_the_same_energies(backend: CHGNetBackend) -> None:
    request = ask(crystals(), compute_forces=False)
    answer = backend.predict(request)
    assert_close(answer.energy, backend.predict(ask(crystals())).energy)
    assert all(result.forces is None for result in answer.results or [])
    assert backend.batch_key(request) != backend.batch_key(ask(crystals()))


@pytest.mark.parametrize(
    ("atoms", "other", "path"),
    [
        (Atoms("CuPu", positions=np.eye(3)[:2] * 3), {}, ""),
        (Atoms("CuAm", positions=np.eye(3)[:2] * 3), {}, "/atomic_numbers/1"),
        (Atoms("RnCu", positions=np.eye(3)[:2] * 3), {}, "/atomic_numbers/0"),
        ([molecule("H2O"), Atoms("CuAm", positions=np.eye(3)[:2] * 3)], {}, "/structures/1/atomic_numbers/1"),
        (molecule("H2O"), {"compute_stress": True}, "/compute_stress"),
        ([bulk("Si"), molecule("H2O")], {"compute_stress": True}, "/compute_stress"),
        (slab(), {"compute_stress": True}, "/compute_stress"),
        (Atoms("H2", positions=np.zeros((2, 3))), {}, "/positions_b64"),
        ([bulk("Si"), Atoms("H2", positions=np.zeros((2, 3)))], {}, "/structures/1/positions_b64"),
        (Atoms("H", cell=[[1, 0, 0], [2, 0, 0], [0, 0, 3]], pbc=True), {}, "/cell"),
        ([Atoms("H", cell=[[1, 0, 0], [0, 0, 0], [0, 0, 3]], pbc=True)], {}, "/structures/0/cell"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_the_model_cannot_do_is_refused(
    atoms: Any, other: dict[str, Any], path: str, backend: CHGNetBackend
) -> None:
    good = ask(crystals()[1])
    outcome, neighbour = backend.predict_all([ask(atoms, **other), good])
    assert isinstance(neighbour, MaterialsResponse)
    if not path:
        assert isinstance(outcome, MaterialsResponse)
        return
    assert fault_of(outcome) == ("unsupported", path)


def test_a_crowd_of_atoms_is_refused_before_its_neighbours_are_counted(backend: CHGNetBackend) -> None:
    crowd = Atoms("H100000", positions=np.random.default_rng(0).uniform(0, 2, (100_000, 3)))
    with pytest.raises(InvalidRequestError, match="cannot serve") as refused:
        backend.predict(ask(crowd))
    assert fault_of(refused.value) == ("unsupported", "/positions_b64")


def test_cost_counts_neighbours(backend: CHGNetBackend) -> None:
    for atoms in (crystals()[4], crystals()[5]):
        counted = 2 * len(backend.neighbors(backend_place(atoms)).pairs)
        assert 0.7 < backend.cost(ask(atoms)) / counted < 1.4
    assert backend.cost(ask(crystals())) == pytest.approx(sum(backend.cost(ask(a)) for a in crystals()))
    assert backend.cost(ask(Atoms("H"))) == 1


def backend_place(atoms: Atoms) -> Any:
    from sheaf.backends._families.materials import places_of

    return places_of(ask(atoms))[0]


def test_settings_have_older_spellings_and_wrong_ones_are_told(tmp_path: Path) -> None:
    assert CHGNetBackend(model="r2scan").model_id == "r2scan"
    assert CHGNetBackend(default_dtype="float64").dtype == "float64"
    with pytest.raises(TypeError, match="default_dtype"):
        CHGNetBackend(dtype="float32", default_dtype="float64")
    with pytest.raises(ValueError, match="float16"):
        load(dtype="float16")
    with pytest.raises(OSError, match=r"nowhere.*0\.3\.0"):  # and what there is in its place
        load(str(tmp_path / "nowhere"))


def test_a_file_that_holds_more_than_weights_is_refused(tmp_path: Path) -> None:
    from chgnet.model import CHGNet

    torch.save({"model": CHGNet(n_conv=2)}, tmp_path / "pickled.pth.tar")
    (tmp_path / "text").write_text("no weights")
    for name in ("pickled.pth.tar", "text"):
        with pytest.raises(OSError, match="no checkpoint"):
            load(str(tmp_path / name))
