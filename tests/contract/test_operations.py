"""A model type with several operations: the URL or the body says which, and a backend which it serves."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import uuid4

import httpx
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.lj import LennardJones
from ase.constraints import FixBondLength
from ase.optimize import BFGS, FIRE, LBFGS

from sheaf.api.materials import (
    AtomicStructure,
    AtomsProgress,
    MaterialsRequest,
    MaterialsResponse,
    RelaxRequest,
    RelaxResponse,
    StructureResult,
)
from sheaf.backends.base import ModelBackend, respond
from sheaf.contract.decoding import decode_line
from sheaf.contract.outcomes import read_response
from sheaf.spec import ModelSpec
from sheaf_client import ResultEvent, Sheaf
from sheaf_client._msgpack import MSGPACK_TYPE, pack
from sheaf_client.errors import InvalidRequestError
from tests.contract.targets import TARGETS

OPTIMIZERS = {"fire": FIRE, "lbfgs": LBFGS, "bfgs": BFGS}
NAME = "argon"


def atoms_of(held: Any) -> Any:
    atoms = Atoms(held.atomic_numbers, held.positions, cell=held.cell, pbc=held.pbc)
    atoms.calc = LennardJones(sigma=3.4, epsilon=0.0104, rc=12.0)
    return atoms


class Argon(ModelBackend):
    """Lennard-Jones atoms of ASE's, computed and relaxed; their motion is not followed."""

    model_type = "materials"
    operations = frozenset({"compute", "relax"})
    #: The kinds of requests in each call.
    calls: list[set[type]] = []  # noqa: RUF012 - shared on purpose

    def load(self) -> None:
        self.calls.clear()

    def batch_predict(self, requests: Sequence[Any]) -> list[Any]:
        self.calls.append({type(request) for request in requests})
        return [self._relax(r) if isinstance(r, RelaxRequest) else self._compute(r) for r in requests]

    def _compute(self, request: MaterialsRequest) -> MaterialsResponse:
        several = [atoms_of(held) for held in request.structures or [request]]
        results = [
            StructureResult(
                energy=float(atoms.get_potential_energy()),
                forces=atoms.get_forces().astype(np.float32),
                n_atoms=len(atoms),
            )
            for atoms in several
        ]
        return respond(
            request,
            MaterialsResponse,
            energy=sum(result.energy for result in results),
            n_atoms=sum(result.n_atoms for result in results),
            forces=None if request.structures else results[0].forces,
            results=results if request.structures else None,
        )

    def _relax(self, request: RelaxRequest) -> RelaxResponse:
        atoms = atoms_of(request)
        frames: list[tuple[int, float, float, Any]] = []
        optimizer = OPTIMIZERS[request.optimizer](atoms, logfile=None)

        def record() -> None:
            longest = float(np.linalg.norm(atoms.get_forces(), axis=1).max())
            frames.append(
                (optimizer.nsteps, float(atoms.get_potential_energy()), longest, atoms.positions.copy())
            )

        optimizer.attach(record)
        converged = optimizer.run(fmax=request.fmax, steps=request.max_steps)
        steps, energies, forces, positions = zip(*frames, strict=True)
        return respond(
            request,
            RelaxResponse,
            energy=energies[-1],
            positions=positions[-1],
            forces=atoms.get_forces(),
            converged=bool(converged),
            n_steps=optimizer.nsteps,
            n_atoms=len(atoms),
            n_frames=len(frames),
            frame_steps=list(steps),
            energies=np.array(energies),
            max_forces=np.array(forces),
            trajectory=np.stack(positions),
        )


def dimer(distance: float) -> Any:
    return Atoms([18, 18], [[0.0, 0.0, 0.0], [distance, 0.0, 0.0]])


def body(distance: float = 4.0, **more: Any) -> dict[str, Any]:
    positions = np.asarray(dimer(distance).positions, "<f4").tobytes()
    return {"atomic_numbers": [18, 18], "positions_b64": base64.b64encode(positions).decode(), **more}


@pytest.fixture(scope="module", params=["local", "asgi", "http"])
def client(request: pytest.FixtureRequest) -> Iterator[Sheaf]:
    with TARGETS[request.param]([ModelSpec(name=NAME, backend_cls=Argon)]) as running:
        yield running.with_options(model=NAME)


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with TARGETS["asgi"]([ModelSpec(name=NAME, backend_cls=Argon)]) as running:
        yield running.transport._connections.current()


def faults(response: httpx.Response) -> list[tuple[str, str]]:
    assert response.status_code == 422, response.text
    return [(fault["code"], fault["path"]) for fault in response.json()["errors"]]


def test_a_dimer_relaxes_to_the_minimum_of_the_potential(client: Sheaf) -> None:
    relaxed = client.materials.relax(dimer(4.0), fmax=1e-4, optimizer="bfgs")
    assert relaxed.converged
    np.testing.assert_allclose(np.ptp(relaxed.positions[:, 0]), 2 ** (1 / 6) * 3.4, rtol=1e-3)
    assert relaxed.trajectory.shape == (relaxed.n_frames, 2, 3)
    assert relaxed.energies[-1] == relaxed.energy < relaxed.energies[0]
    assert relaxed.to_pandas().index[0] == 0
    again = client.materials.compute(relaxed.to_ase(dimer(4.0)))
    np.testing.assert_allclose(again.energy, relaxed.energy, rtol=1e-4)


def test_a_keyword_stands_in_place_of_what_the_atoms_say(client: Sheaf) -> None:
    bound = dimer(4.0)
    bound.set_constraint(FixBondLength(0, 1))
    with pytest.raises(InvalidRequestError, match="FixBondLengths is not honoured"):
        client.materials.relax(bound)
    relaxed = client.materials.relax(bound, fixed=[False, False], fmax=1e-4, optimizer="bfgs")
    np.testing.assert_allclose(np.ptp(relaxed.positions[:, 0]), 2 ** (1 / 6) * 3.4, rtol=1e-3)


def test_many_structures_of_any_kind_are_computed_in_order(client: Sheaf) -> None:
    several = [
        dimer(3.8),
        {"atomic_numbers": [18], "positions": np.zeros((1, 3))},
        AtomicStructure(atomic_numbers=[18, 18, 18], positions=np.eye(3) * 5),
    ]
    answer = client.materials.compute(structures=several)
    assert [result.n_atoms for result in answer.results] == [2, 1, 3]
    alone = client.materials.compute(dimer(3.8))
    assert (alone.results, alone.n_atoms) == (None, 2)
    assert answer.results[0].energy == alone.energy
    np.testing.assert_array_equal(answer.results[0].forces, alone.forces)
    assert answer.energy == pytest.approx(sum(result.energy for result in answer.results))
    with pytest.raises(InvalidRequestError) as caught:
        client.materials.compute(structures=[molecule("H2"), {"atomic_numbers": [1], "positions": np.eye(3)}])
    assert [(f.code, f.path) for f in caught.value.errors] == [
        ("bytes_match_shape", "/structures/1/positions_b64")
    ]


def test_a_stream_of_another_operation_ends_with_its_answer(client: Sheaf) -> None:
    with client.materials.relax_stream(dimer(4.0)) as stream:
        *steps, last = stream
    assert isinstance(last, ResultEvent)
    assert isinstance(last.response, RelaxResponse)
    assert {type(step) for step in steps} == {AtomsProgress}


def test_an_operation_that_the_model_has_not_is_refused(client: Sheaf) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        client.materials.molecular_dynamics(dimer(4.0), n_steps=10)
    assert [(fault.code, fault.path) for fault in caught.value.errors] == [("unsupported", "/operation")]
    assert "it has compute, relax" in caught.value.errors[0].message


def test_the_models_list_their_operations(client: Sheaf) -> None:
    (model,) = client.models.list()
    assert model.operations == [f"/{NAME}/materials/compute", f"/{NAME}/materials/relax"]


def test_the_url_names_the_operation_where_the_body_does_not(http: httpx.Client) -> None:
    assert "operation" not in http.post(f"/{NAME}/materials/compute", json=body()).json()
    assert http.post(f"/{NAME}/materials/relax", json=body()).json()["operation"] == "relax"
    other = body(operation="molecular_dynamics")
    assert faults(http.post(f"/{NAME}/materials/relax", json=other)) == [("not_allowed", "/operation")]
    unserved = http.post(f"/{NAME}/materials/molecular_dynamics", json=body(n_steps=1))
    assert faults(unserved) == [("unsupported", "/operation")]


def test_the_body_names_the_operation_where_the_url_does_not(http: httpx.Client) -> None:
    assert "converged" not in http.post(f"/{NAME}/predict", json=body()).json()
    assert http.post(f"/{NAME}/predict", json=body(operation="relax")).json()["converged"] is True
    for unknown in ("anneal", "compute", None, 1, ["relax"]):
        assert faults(http.post(f"/{NAME}/predict", json=body(operation=unknown))) == [
            ("not_allowed", "/operation")
        ]
    streamed = http.post(f"/{NAME}/stream", json=body(operation="relax"))
    assert '"operation":"relax"' in streamed.text
    request = RelaxRequest(model_name=NAME, atomic_numbers=[18, 18], positions=dimer(4.0).positions)
    packed = http.post(f"/{NAME}/predict", content=pack(request), headers={"content-type": MSGPACK_TYPE})
    assert packed.json()["operation"] == "relax"


def test_a_batch_may_mix_operations_and_no_call_of_the_model_does(http: httpx.Client) -> None:
    sent = [body(), body(operation="relax"), body(operation="anneal"), body(), body(operation="relax")]
    answers = http.post(f"/{NAME}/batch", json={"requests": sent}).json()["responses"]
    assert [answer.get("operation", answer.get("status", "compute")) for answer in answers] == [
        *("compute", "relax", 422, "compute", "relax")
    ]
    assert all(len(kinds) == 1 for kinds in Argon.calls)


def test_a_line_of_a_job_names_its_operation() -> None:
    for more, kind in (({}, MaterialsRequest), ({"operation": "relax"}, RelaxRequest)):
        assert type(decode_line(json.dumps(body(**more)).encode(), "materials", NAME, uuid4())) is kind
    with pytest.raises(InvalidRequestError) as caught:
        decode_line(json.dumps(body(operation="anneal")).encode(), "materials", NAME, uuid4())
    assert [(fault.code, fault.path) for fault in caught.value.errors] == [("not_allowed", "/operation")]
    relaxed = Argon().predict(RelaxRequest(model_name=NAME, atomic_numbers=[18], positions=np.zeros((1, 3))))
    assert type(read_response(json.loads(relaxed.model_dump_json()))) is RelaxResponse


def test_a_backend_cannot_name_an_operation_that_its_contract_has_not() -> None:
    class Typo(Argon):
        operations = frozenset({"compute", "relaxe"})

    with pytest.raises(ValueError, match=r"operations that materials has not.*relaxe"):
        ModelSpec(name=NAME, backend_cls=Typo)
