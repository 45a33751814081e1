"""Objects as people hold them, through whole clients: what arrives at the model is what was held."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk
from Bio.Seq import Seq
from PIL import Image

from sheaf.api.depth import DepthRequest, DepthResponse
from sheaf.api.materials import MaterialsRequest, MaterialsResponse
from sheaf.api.molecular import MolecularRequest, MolecularResponse
from sheaf.backends.base import ModelBackend, respond
from sheaf.http import create_app
from sheaf.local import LocalModels
from sheaf.spec import ModelSpec
from sheaf_client import AsyncSheaf, Sheaf
from sheaf_client.errors import InvalidRequestError


class Springs(ModelBackend[MaterialsRequest, MaterialsResponse]):
    """Pulls each atom to the origin: forces are the positions, turned around."""

    model_type = "materials"

    def load(self) -> None:
        pass

    def batch_predict(self, requests: Any) -> Any:
        return [
            respond(
                request,
                MaterialsResponse,
                energy=float((request.positions**2).sum() / 2),
                forces=-request.positions,
                stress=None,
                n_atoms=len(request.atomic_numbers),
            )
            for request in requests
        ]


class Brightness(ModelBackend[DepthRequest, DepthResponse]):
    """Takes what is dark for far."""

    model_type = "depth"

    def load(self) -> None:
        pass

    def batch_predict(self, requests: Any) -> Any:
        answers = []
        for request in requests:
            grey = np.asarray(request.image.to_pil().convert("L"), np.float32)
            height, width = grey.shape
            low, high = float(grey.min()), float(grey.max())
            answers.append(
                respond(
                    request,
                    DepthResponse,
                    depth=grey,
                    height=height,
                    width=width,
                    min_depth=low,
                    max_depth=high,
                )
            )
        return answers


class Lengths(ModelBackend[MolecularRequest, MolecularResponse]):
    """Embeds a sequence as its length."""

    model_type = "molecular"

    def load(self) -> None:
        pass

    def batch_predict(self, requests: Any) -> Any:
        return [
            respond(r, MolecularResponse, embeddings=[[float(len(s))] for s in r.sequences], dim=1)
            for r in requests
        ]


SPECS = [
    ModelSpec(name="springs", backend_cls=Springs),
    ModelSpec(name="brightness", backend_cls=Brightness),
    ModelSpec(name="lengths", backend_cls=Lengths),
]


@contextmanager
def over_asgi(**settings: Any) -> Iterator[Sheaf]:
    models = LocalModels.start(SPECS)
    with Sheaf.asgi(create_app(models), **settings) as client:
        yield client
    models.stop()


@pytest.fixture(params=["local", "json", "msgpack"])
def client(request: pytest.FixtureRequest) -> Iterator[Sheaf]:
    if request.param == "local":
        with Sheaf.local(SPECS) as held:
            yield held
        return
    with over_asgi(binary="always" if request.param == "msgpack" else "never") as held:
        yield held


def test_atoms_go_in_and_come_back_with_their_results(client: Sheaf) -> None:
    crystal = bulk("NaCl", "rocksalt", a=5.64)
    answer = client.materials.compute(crystal, model="springs")
    held = answer.to_ase(crystal)
    assert np.allclose(held.get_forces(), -crystal.get_positions(), atol=1e-6)
    assert held.get_potential_energy() == pytest.approx((crystal.get_positions() ** 2).sum() / 2)


def test_whole_objects_stream_too(client: Sheaf) -> None:
    with client.materials.stream(bulk("Si"), model="springs") as stream:
        assert stream.final().n_atoms == 2


def test_an_image_goes_in_in_every_form(client: Sheaf, tmp_path: Path) -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    picture = Image.fromarray(pixels)
    path = tmp_path / "grey.png"
    picture.save(path)
    with path.open("rb") as file:
        for held in (
            pixels,
            picture,
            path,
            str(path),
            path.read_bytes(),
            io.BytesIO(path.read_bytes()),
            file,
        ):
            answer = client.depth.estimate(held, model="brightness")
            assert np.array_equal(answer.to_numpy(), pixels), type(held)


def test_a_fasta_file_goes_in_and_a_table_comes_out(client: Sheaf, tmp_path: Path) -> None:
    path = tmp_path / "two.fasta"
    path.write_text(">a\nMK\nTA\n>b\nGI\n")
    assert client.molecular.embed(path, model="lengths").to_pandas().to_numpy().tolist() == [[4.0], [2.0]]
    assert client.molecular.embed(Seq("MKT"), model="lengths").to_numpy().tolist() == [[3.0]]


def test_what_is_held_may_be_wrong_and_the_fault_names_its_field(client: Sheaf) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        client.molecular.embed([Seq("MKT"), Seq("M?")], model="lengths")
    assert [fault.path for fault in caught.value.errors] == ["/sequences/1"]
    with pytest.raises(TypeError, match="Atoms gives"):
        client.materials.compute(bulk("Si"), model="springs", pbc=False)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="cannot stand for a DepthRequest"):
        client.depth.estimate(bulk("Si"), model="brightness")  # type: ignore[call-overload]
    wrong = MolecularRequest(model_name="lengths", sequences=["MKT"])
    with pytest.raises(TypeError, match="takes a DepthRequest, not a MolecularRequest"):
        client.depth.estimate(wrong)  # type: ignore[call-overload]


def test_the_async_client_takes_the_same() -> None:
    async def use() -> int:
        async with AsyncSheaf.local(SPECS) as held:
            return (await held.materials.compute(bulk("Si"), model="springs")).n_atoms

    assert asyncio.run(use()) == 2


def test_a_raw_answer_of_a_whole_object() -> None:
    with over_asgi() as client:
        raw = client.with_raw_response.materials.compute(bulk("Si"), model="springs")
        assert raw.http_response.status_code == 200
        assert raw.parse().n_atoms == 2
