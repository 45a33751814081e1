"""Relaxations and simulations as steps of the engine: they share passes, come and go, and end between two."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.constraints import FixAtoms

from sheaf import ModelSpec
from sheaf.api.materials import AtomsProgress, MaterialsResponse, RelaxResponse
from sheaf.embedded import EmbeddedServer
from sheaf.engine import ModelRuntime
from sheaf.scheduling.batch import BatchPolicy
from sheaf_client import ResultEvent, Sheaf
from sheaf_client.errors import BackendError, DeadlineExceededError, InvalidRequestError
from tests.backends.answers import fault_of
from tests.backends.materials.checkpoints import make_mace
from tests.backends.materials.materials_cases import ask, assert_same_walk, dynamics, relaxation, shaken
from tests.engine.harness import Watching, nothing_left, outcome, wait_until

pytest.importorskip("chgnet")
pytestmark = [
    pytest.mark.torch,
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore"),
    # Not importorskip: on import the library changes the environment.
    pytest.mark.skipif(find_spec("mace") is None, reason="mace-torch is not installed"),
]

#: Structures that are told apart by how many atoms they have: 2, 3, 4 and 8.
SALT = shaken(bulk("NaCl", "rocksalt", a=5.5), by=0.1)
WATER = shaken(molecule("H2O"), 2, by=0.1)
SILICON = shaken(bulk("Si", a=5.4) * (2, 1, 1), 1, by=0.1)
CUBE = shaken(bulk("NaCl", "rocksalt", a=5.5, cubic=True), by=0.1)
#: More steps than any test waits for.
ENDLESS: dict[str, Any] = {"n_steps": 1_000_000, "record_every": 1_000_000}

#: A longest force that `SILICON` gets to in some steps, by the model.
NEARLY_THERE = {"chgnet": 0.5, "mace": 0.0035, None: 0.0}


def spec_of(name: str, mace: str, **policy: Any) -> ModelSpec:
    settings = {"model_id": mace, "trust_pickle": True, "dtype": "float64"} if name == "mace" else {}
    bounds = BatchPolicy.model_validate(policy)
    return ModelSpec(name="m", backend=name, backend_kwargs=settings, batch_policy=bounds)


@pytest.fixture(scope="module")
def mace(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_mace(tmp_path_factory.mktemp("mace") / "tiny.model", atomic_inter_scale=20.0))


@pytest.fixture(scope="module", params=["chgnet", "mace"])
def runtime(request: pytest.FixtureRequest, mace: str) -> Iterator[ModelRuntime]:
    with running(spec_of(request.param, mace)) as found:
        yield found


@contextmanager
def running(spec: ModelSpec, observer: Any = None) -> Iterator[ModelRuntime]:
    found = ModelRuntime(spec, observer)
    found.start()
    try:
        yield found
    finally:
        found.stop(drain=False)


class Passes:
    """The atoms of the structures in each pass of a potential; the pass of a given number waits."""

    def __init__(self, evaluate: Callable[..., Any], held: int) -> None:
        self.sizes: list[list[int]] = []
        self.entered, self.gate = threading.Event(), threading.Event()
        self._evaluate, self._held = evaluate, held

    def __call__(self, structures: Any, pairs: Any, *, gradient: bool) -> Any:
        self.sizes.append(sorted(len(one) for one in structures))
        if len(self.sizes) == self._held:
            self.entered.set()
            assert self.gate.wait(60), "the test never opened the gate"
        return self._evaluate(structures, pairs, gradient=gradient)

    def of(self, n_atoms: int) -> int:
        return sum(n_atoms in sizes for sizes in self.sizes)


@contextmanager
def watched(runtime: ModelRuntime, held: int = 0) -> Iterator[Passes]:
    potential: Any = getattr(runtime.backend, "_potential")  # noqa: B009 - it is the backend's own
    passes = potential.evaluate = Passes(potential.evaluate, held)
    try:
        yield passes
    finally:
        passes.gate.set()
        del potential.evaluate


def no_loop_left() -> None:
    wait_until(lambda: all(thread.name != "sheaf-loop" for thread in threading.enumerate()))


def test_who_comes_later_joins_the_passes_and_who_is_done_leaves_them(runtime: ModelRuntime) -> None:
    requests: list[Any] = [
        dynamics(SALT, n_steps=6),
        dynamics(SILICON, n_steps=2, seed=5),
        relaxation(CUBE, max_steps=1, fmax=1e-6),
    ]
    with watched(runtime, held=3) as passes:
        futures = [runtime.submit(requests[0])]
        assert passes.entered.wait(60)
        futures += [runtime.submit(request) for request in requests[1:]]
        passes.gate.set()
        answers = [future.result(60) for future in futures]
    assert passes.sizes == [[2], [2], [2], [2, 4, 8], [2, 4, 8], [2, 4], [2]]
    for request, answer in zip(requests, answers, strict=True):
        assert answer.metadata.usage.batch_size == 3
        assert_same_walk(answer, runtime.backend.predict(request))
    no_loop_left()


def test_a_relaxation_that_has_converged_is_answered_while_others_go_on(runtime: ModelRuntime) -> None:
    with watched(runtime) as passes:
        endless = runtime.submit(dynamics(SALT, **ENDLESS))
        relaxed = runtime.submit(relaxation(SILICON, fmax=NEARLY_THERE[runtime.spec.backend])).result(60)
        assert isinstance(relaxed, RelaxResponse)
        assert relaxed.converged
        assert relaxed.n_steps > 1
        assert [2, 4] in passes.sizes
        assert not endless.done()
        seen = passes.of(4)
        wait_until(lambda: passes.sizes[-3:] == [[2]] * 3)
        assert passes.of(4) == seen == relaxed.n_steps + 1
        assert endless.cancel()
        nothing_left(runtime)
    no_loop_left()


def test_single_points_run_between_the_steps_of_a_simulation(runtime: ModelRuntime) -> None:
    endless = runtime.submit(dynamics(SALT, **ENDLESS))
    answers = [runtime.submit(ask(atoms)).result(60) for atoms in (CUBE, SILICON)]
    assert all(isinstance(answer, MaterialsResponse) for answer in answers)
    assert endless.cancel()
    nothing_left(runtime)


@pytest.mark.parametrize("held", [False, True], ids=["atoms that move", "atoms that are held"])
def test_a_million_steps_end_at_their_deadline_and_the_next_is_answered(
    runtime: ModelRuntime, *, held: bool
) -> None:
    """Where nothing moves, ASE asks nothing of the potential: those steps end between two as well."""
    atoms = SALT.copy()
    atoms.set_constraint(FixAtoms([0, 1]) if held else [])
    fixed: dict[str, Any] = {"fixed": [True, True]} if held else {}
    late = runtime.submit(dynamics(atoms, **ENDLESS, **fixed), timeout=0.3)
    assert isinstance(outcome(late), DeadlineExceededError)
    answer = runtime.submit(relaxation(SILICON, max_steps=2, fmax=1e-6)).result(60)
    assert answer.n_steps == 2
    nothing_left(runtime)
    no_loop_left()


def test_a_deadline_that_passes_on_the_way_says_so(runtime: ModelRuntime) -> None:
    late = outcome(runtime.submit(dynamics(SALT, **ENDLESS), timeout=0.3))
    assert "while the model was at work" in str(late)


def test_who_leaves_between_two_steps_ends_them(runtime: ModelRuntime) -> None:
    with watched(runtime) as passes:
        future = runtime.submit(dynamics(SALT, **ENDLESS))
        wait_until(lambda: len(passes.sizes) > 3)
        assert future.cancel()
        nothing_left(runtime)
        before = len(passes.sizes)
        assert runtime.submit(relaxation(SILICON, max_steps=1, fmax=1e-6)).result(60).n_steps == 1
        assert passes.sizes[before:] == [[4], [4]]
    no_loop_left()


def test_streams_share_their_passes_and_each_tells_its_own_steps(runtime: ModelRuntime) -> None:
    requests: dict[str, Any] = {
        "dynamics": dynamics(SILICON, n_steps=4, timestep_fs=0.5),
        "relaxation": relaxation(CUBE, max_steps=3, fmax=1e-6),
    }
    told: dict[str, list[Any]] = {}

    def read(name: str) -> None:
        told[name] = list(runtime.iter_stream(requests[name], timeout=60))

    threads = [threading.Thread(target=read, args=(name,)) for name in requests]
    with watched(runtime, held=2) as passes:
        first = runtime.submit(dynamics(SALT, n_steps=2))
        assert passes.entered.wait(60)
        for thread in threads:
            thread.start()
        wait_until(lambda: runtime.depth == 2)
        passes.gate.set()
        for thread in threads:
            thread.join(60)
        assert first.result(60).n_steps == 2
    assert passes.sizes == [[2], [2], [2, 4, 8], [4, 8], [4, 8], [4, 8], [4]]
    for name, request in requests.items():
        *events, last = told[name]
        assert isinstance(last, ResultEvent)
        alone = list(runtime.backend.stream(request))
        assert_same_walk(last.response, alone[-1])
        assert [event.step for event in events] == [event.step for event in alone[:-1]]
        for event, expected in zip(events, alone[:-1], strict=True):
            assert isinstance(event, AtomsProgress)
            np.testing.assert_allclose(event.positions, expected.positions, atol=1e-4)
            assert event.time_fs == expected.time_fs
    assert told["dynamics"][0].total_steps == 4


def test_a_stream_that_its_caller_leaves_stops_and_its_neighbour_goes_on(runtime: ModelRuntime) -> None:
    with watched(runtime) as passes:
        events = runtime.iter_stream(dynamics(SALT, **ENDLESS), timeout=60)
        other = runtime.iter_stream(dynamics(SILICON, **ENDLESS), timeout=60)
        assert [next(events).step, next(other).step] == [1, 1]
        wait_until(lambda: [2, 4] in passes.sizes)
        events.close()
        wait_until(lambda: passes.sizes[-3:] == [[4]] * 3)
        assert isinstance(next(other), AtomsProgress)
        other.close()
        nothing_left(runtime)
    no_loop_left()


def test_the_more_urgent_goes_first_between_two_steps(mace: str) -> None:
    with (
        running(spec_of("mace", mace, max_batch_size=1, priority_seconds=100)) as runtime,
        watched(runtime, held=2) as passes,
    ):
        slow = runtime.submit(dynamics(SALT, n_steps=4))
        assert passes.entered.wait(60)
        urgent = runtime.submit(relaxation(SILICON, max_steps=1, fmax=1e-6), priority=1)
        passes.gate.set()
        assert urgent.result(60).n_steps == 1
        assert slow.result(60).n_steps == 4
        assert passes.sizes == [[2], [2], [4], [4], [2], [2], [2]]


def test_each_step_is_a_call_of_its_own_so_long_ones_do_not_count_as_hung(mace: str) -> None:
    watching = Watching()
    with running(spec_of("mace", mace), watching) as runtime:
        answer = runtime.submit(dynamics(SALT, n_steps=20)).result(60)
        nothing_left(runtime)
    assert len(watching.records) == 21
    assert sum(record.seconds for record in watching.records) >= answer.metadata.usage.compute_seconds
    assert max(r.seconds for r in watching.records) < sum(r.seconds for r in watching.records) / 2


def poisoned(passes: Passes, n_atoms: int, poison: Callable[[Any], Any]) -> None:
    """From its third pass on the structure of so many atoms has other results, or none."""
    evaluate = passes._evaluate

    def steered(structures: Any, pairs: Any, *, gradient: bool) -> Any:
        found = evaluate(structures, pairs, gradient=gradient)
        for i, one in enumerate(structures):
            if len(one) == n_atoms and passes.of(n_atoms) > 2:
                found[i] = poison(found[i])
        return found

    passes._evaluate = steered


def test_a_structure_without_finite_forces_costs_itself_alone(runtime: ModelRuntime) -> None:
    def not_finite(found: Any) -> Any:
        return type(found)(found.energy, np.full_like(found.forces, np.nan), found.stress)

    good = [dynamics(SALT, n_steps=5), relaxation(CUBE, max_steps=5, fmax=1e-6)]
    for bad, path in (
        (dynamics(WATER, n_steps=5), "/timestep_fs"),
        (relaxation(WATER, max_steps=5, fmax=1e-6), "/positions_b64"),
    ):
        with watched(runtime) as passes:
            poisoned(passes, len(WATER), not_finite)
            futures = [runtime.submit(request) for request in (bad, *good)]
            refused = outcome(futures[0])
            assert isinstance(refused, InvalidRequestError)
            assert fault_of(refused) == ("unsupported", path)
            answers = [future.result(60) for future in futures[1:]]
        assert [passes.of(len(atoms)) for atoms in (WATER, SALT, CUBE)] == [3, 6, 6]
        for request, answer in zip(good, answers, strict=True):
            assert_same_walk(answer, runtime.backend.predict(request))
    no_loop_left()


def test_a_structure_on_which_the_model_fails_costs_itself_alone(runtime: ModelRuntime) -> None:
    """Its neighbours take the step again, and not all steps from the first."""

    def fail(_: Any) -> Any:
        raise RuntimeError("the model cannot")

    good = [dynamics(SALT, n_steps=5), relaxation(CUBE, max_steps=5, fmax=1e-6)]
    with watched(runtime, held=1) as passes:
        poisoned(passes, len(WATER), fail)
        futures = [runtime.submit(request) for request in (dynamics(WATER, n_steps=5), *good)]
        passes.gate.set()
        assert isinstance(outcome(futures[0]), BackendError)
        answers = [future.result(60) for future in futures[1:]]
    assert max(passes.of(len(SALT)), passes.of(len(CUBE))) <= 8
    for request, answer in zip(good, answers, strict=True):
        assert_same_walk(answer, runtime.backend.predict(request))
    no_loop_left()


def test_without_an_engine_a_failure_ends_all_and_leaves_no_thread(runtime: ModelRuntime) -> None:
    def fail(_: Any) -> Any:
        raise MemoryError("no room")

    with watched(runtime) as passes:
        poisoned(passes, len(SILICON), fail)
        with pytest.raises(MemoryError, match="no room"):
            runtime.backend.batch_predict([dynamics(SALT), dynamics(SILICON)])
        no_loop_left()


def test_a_stream_over_http_tells_steps_and_ends_with_its_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    from sheaf.backends._models.chgnet.potential import CHGNet

    sizes: list[int] = []
    evaluate = CHGNet.evaluate

    def counted(self: Any, structures: Any, pairs: Any, *, gradient: bool) -> Any:
        sizes.append(len(structures))
        return evaluate(self, structures, pairs, gradient=gradient)

    monkeypatch.setattr(CHGNet, "evaluate", counted)
    with EmbeddedServer([ModelSpec(name="m", backend="chgnet")], port=0) as server:
        materials = Sheaf(server.url, model="m", timeout=60).materials
        simulate = materials.molecular_dynamics_stream
        with simulate(SALT, **ENDLESS) as one, simulate(SILICON, **ENDLESS) as other:
            assert [next(stream).step >= 1 for stream in (one, other, one)] == [True] * 3
            wait_until(lambda: 2 in sizes)
        no_loop_left()  # both callers have left
        assert materials.relax(SALT, max_steps=1, fmax=1e-6).n_steps == 1
        assert sizes[-2:] == [1, 1]
    no_loop_left()
