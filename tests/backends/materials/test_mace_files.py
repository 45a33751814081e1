"""Files of MACE models: pickles read as data, released models by name, and files that mean harm."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from ase.build import bulk, molecule

from sheaf.api.materials import MaterialsRequest
from sheaf.backends.mace import MACEBackend
from tests.backends.materials.checkpoints import make_mace

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.torch,
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore"),
    # Not importorskip: on import the library changes the environment.
    pytest.mark.skipif(
        find_spec("mace") is None, reason="mace-torch is not installed: pip install mace-torch"
    ),
]


def load(path: Path | str, **settings: Any) -> MACEBackend:
    backend = MACEBackend(model=str(path), **settings)
    backend.load()
    return backend


def answers(backend: MACEBackend) -> list[Any]:
    found: list[Any] = []
    for atoms in (molecule("CH3OH"), bulk("NaCl", "rocksalt", a=5.6)):
        request = MaterialsRequest(
            model_name="m",
            atomic_numbers=atoms.numbers.tolist(),
            positions=atoms.positions,
            cell=atoms.cell.tolist() if atoms.pbc.any() else None,
            pbc=bool(atoms.pbc.any()),
        )
        response = backend.predict(request)
        found += [response.energy, *response.forces.ravel().tolist()]
    return found


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"distance_transform": "Agnesi", "pair_repulsion": True},
        {"heads": ["pbe", "scan"], "atomic_inter_scale": [1.0, 2.0], "atomic_inter_shift": [0.1, 0.2]},
        {"max_ell": 3, "correlation": 3},
    ],
    ids=["plain", "transformed", "two heads", "higher order"],
)
def test_a_pickle_read_as_data_is_the_model_that_it_pickles(settings: dict[str, Any], tmp_path: Path) -> None:
    import numpy as np

    if "heads" in settings:
        settings = {**settings, "atomic_energies": np.linspace([-1, -2], [-3, -4], 89, axis=1)}
    file = make_mace(tmp_path / "tiny.model", **settings)
    head = {"head": "scan"} if "heads" in settings else {}
    as_data = answers(load(file, dtype="float64", **head))
    trusted = answers(load(file, dtype="float64", trust_pickle=True, **head))
    assert as_data == pytest.approx(trusted, rel=1e-10, abs=1e-10)
    assert max(map(abs, trusted)) > 0.1


class Harm:
    """What a pickle calls as it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_trust_is_the_server_s_own_to_give() -> None:
    """What the admin's routes refuse to take: tests/http/test_admin.py."""
    assert MACEBackend.trusted_settings == {"trust_pickle"}


def test_nothing_that_a_file_names_is_called(tmp_path: Path) -> None:
    harmed = tmp_path / "harmed"
    model = torch.load(make_mace(tmp_path / "good.model"), weights_only=False)
    for name, content in {"alone": Harm(harmed), "inside": {"model": model, "more": Harm(harmed)}}.items():
        torch.save(content, tmp_path / name)
        with pytest.raises(ValueError, match=r"cannot be read as data.*trust_pickle=True"):
            load(tmp_path / name)
    model.harm = Harm(harmed)
    torch.save(model, tmp_path / "hidden")
    load(tmp_path / "hidden")  # the model is whole; what is hidden in it stays an inert object
    assert not harmed.exists()
    torch.load(tmp_path / "hidden", weights_only=False)
    assert harmed.exists()  # it would have


@pytest.mark.parametrize(
    "content", [b"", b"not a model", b"\x80\x02}q\x00."], ids=["empty", "text", "pickle"]
)
def test_what_is_no_model_is_told(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "odd.model").write_bytes(content)
    with pytest.raises(ValueError, match=r"odd\.model .*cannot be read as data.*trust_pickle=True"):
        load(tmp_path / "odd.model")


def test_a_released_model_goes_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that the library's function finds in its cache, under the name that it gives it there."""
    from sheaf.backends._models.mace.library import mace

    url = mace("mace.calculators.foundations_models").mace_mp_urls["medium"]
    (tmp_path / "mace").mkdir()
    name = "".join(c for c in Path(url).name if c.isalnum() or c == "_")
    file = make_mace(tmp_path / "mace" / name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert answers(load("medium")) == answers(load(file))


def test_a_released_model_that_cannot_be_had_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody is there
    with pytest.raises(OSError, match=r"the model small is not in .*mace and cannot be downloaded"):
        load("small")
    with pytest.raises(OSError, match=r"nor the name of a released model: .*medium.*mpa-0"):
        load("medum")
