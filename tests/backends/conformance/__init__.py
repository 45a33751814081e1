"""What every backend promises, as a class that its test derives from: the test says what to load and to ask.

    class TestYagi(BackendConformance):
        backend_class = YagiBackend

        @pytest.fixture(scope="class")
        def settings(self, tmp_path_factory): ...       # what loads it from a tiny true checkpoint
        @pytest.fixture(scope="class")
        def requests(self): ...                         # requests that differ, each with one answer
        @pytest.fixture(scope="class")
        def direct(self, settings): ...                 # the library's own call: fields of the answer
        @pytest.fixture(scope="class")
        def refused(self): ...                          # [(request, code, path)] that `check` refuses

A check that makes no sense for a backend is named in `exempt` with the reason, and reported as skipped by it.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest

from sheaf.backends.base import ModelBackend
from sheaf.engine import ModelRuntime
from sheaf.extras import install_command
from sheaf.spec import ModelSpec
from sheaf_client import ProgressEvent, ResultEvent
from sheaf_client.contracts.base import BaseRequest
from sheaf_client.errors import InvalidRequestError
from tests.backends.answers import assert_alike, fields_of
from tests.backends.conformance.drawing import draw_requests
from tests.backends.conformance.process_state import changed, held_still, process_state, stir, tensors_of, young_heap

PAGES = Path(__file__).parents[3] / "docs/backends"
#: The checks of a checkpoint's parts.
CHECKPOINT_CHECKS = (
    "test_a_checkpoint_that_is_not_there_is_told",
    "test_a_file_that_a_checkpoint_lacks_is_told",
    "test_weights_that_a_checkpoint_lacks_are_never_made_up",
)
#: Callers at a time.
CALLERS = 8


class Refused(NamedTuple):
    """A request that the contract allows and the model cannot serve."""

    request: Any
    code: str
    path: str


class BackendConformance:
    """The checks. A derived class gives four fixtures and what differs from the defaults here."""

    backend_class: ClassVar[type[ModelBackend]]
    #: Checks that make no sense for this backend, by the name of the test, with the reason.
    exempt: ClassVar[Mapping[str, str]] = {}
    #: Most difference between numbers, relative to the largest of their array or to `unit`.
    tolerance: ClassVar[float] = 2e-5
    unit: ClassVar[float] = 0.0
    #: The same in half precision, and the setting that asks for it.
    half_tolerance: ClassVar[float] = 0.1
    half_settings: ClassVar[Mapping[str, Any]] = {"dtype": "bfloat16"}
    #: Fields that random batches vary beside the schema's switches: their values, or None for all it allows.
    options: ClassVar[Mapping[str, Sequence[Any] | None]] = {}
    #: Random batches; by hand many more: `SHEAF_CO_BATCHES=1000 pytest tests/backends -k co_batches`.
    co_batches: ClassVar[int] = 12
    #: Files that a checkpoint's folder must have; and weights, each with the file of safetensors it is in.
    needed_files: ClassVar[tuple[str, ...]] = ()
    needed_weights: ClassVar[tuple[tuple[str, str], ...]] = ()
    #: Libraries of its `info` that these settings do not need.
    unused_libraries: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        unknown = [name for name in cls.exempt if not callable(getattr(cls, name, None))]
        assert not unknown, f"{cls.__name__} is exempt from what is no check: {unknown}"

    # What a test gives, and what is made of it.

    @pytest.fixture(scope="class")
    def settings(self) -> dict[str, Any]:
        """The keywords that load the model from a tiny true checkpoint."""
        raise NotImplementedError("write a fixture `settings`")

    @pytest.fixture(scope="class")
    def requests(self) -> Sequence[BaseRequest]:
        """Requests of several sizes and options, each with one answer (those that draw have a seed)."""
        raise NotImplementedError("write a fixture `requests`")

    @pytest.fixture(scope="class")
    def direct(self) -> Callable[[Any], Mapping[str, Any]]:
        """By one call of the library for one request: fields of the answer."""
        raise NotImplementedError("write a fixture `direct`")

    @pytest.fixture(scope="class")
    def refused(self) -> Sequence[tuple[Any, str, str]]:
        """Requests that `check` refuses, each with the code and path of its fault."""
        raise NotImplementedError("write a fixture `refused`")

    @pytest.fixture(scope="class")
    def poison(self, refused: Sequence[tuple[Any, str, str]]) -> Sequence[tuple[Any, str, str]]:
        """Requests that fail in the places of a batch: by default those that `check` refuses.

        Where some fail only while they are computed (numbers that overflow), give those too.
        """
        return refused[:1]

    @pytest.fixture(scope="class")
    def neighbor(self, settings: dict[str, Any]) -> dict[str, Any]:
        """The settings of another model of the family, which is loaded beside the first."""
        return settings

    @pytest.fixture(scope="class")
    def first(self, settings: dict[str, Any]) -> Iterator[tuple[ModelBackend, list[str]]]:
        """The loaded backend, and what its loading changed in the process."""
        stir()
        before = process_state()
        backend = self.made(settings)
        backend.load()
        left = changed(before)
        backend.warm_up()
        yield backend, left
        backend.unload()

    @pytest.fixture(scope="class")
    def backend(self, first: tuple[ModelBackend, list[str]]) -> ModelBackend:
        """The loaded backend."""
        return first[0]

    @pytest.fixture(scope="class")
    def alone(self, backend: ModelBackend, requests: Sequence[Any]) -> list[Any]:
        """The answer of each request by itself."""
        return [backend.predict(request) for request in requests]

    @pytest.fixture(autouse=True)
    def not_exempt(self, request: pytest.FixtureRequest) -> None:
        if (reason := self.exempt.get(request.function.__name__)) is not None:
            pytest.skip(f"{self.backend_class.__name__}: {reason}")

    @classmethod
    def loaded(cls, settings: Mapping[str, Any]) -> ModelBackend:
        backend = cls.made(settings)
        backend.load()
        backend.warm_up()
        return backend

    @classmethod
    def made(cls, settings: Mapping[str, Any]) -> ModelBackend:
        return cls.spec(settings).make_backend()

    @classmethod
    def spec(cls, settings: Mapping[str, Any]) -> ModelSpec:
        return ModelSpec(name="m", backend_cls=cls.backend_class, backend_kwargs={**settings})

    @classmethod
    @contextmanager
    def served(cls, settings: Mapping[str, Any]) -> Iterator[ModelRuntime]:
        """The model behind an engine."""
        runtime = ModelRuntime(
            ModelSpec(name="m", backend_cls=cls.backend_class, backend_kwargs={**settings})
        )
        runtime.start()
        try:
            yield runtime
        finally:
            runtime.stop()

    @classmethod
    def assert_alike(cls, found: Any, expected: Any) -> None:
        assert_alike(found, expected, cls.tolerance, cls.unit)

    def assert_all_alike(self, found: Sequence[Any], expected: Sequence[Any]) -> None:
        for answer, wanted in zip(found, expected, strict=True):
            self.assert_alike(answer, wanted)

    # Answers.

    def test_answers_equal_the_librarys_own_call(
        self, backend: ModelBackend, requests: Sequence[Any], direct: Callable[[Any], Mapping[str, Any]]
    ) -> None:
        told: list[str] = []
        for request, answer in zip(requests, backend.predict_all(requests), strict=True):
            assert not isinstance(answer, Exception), answer
            expected = direct(request)
            self.assert_alike({name: getattr(answer, name) for name in expected}, dict(expected))
            told.append(repr(expected))
            assert answer.request_id == request.request_id
        assert len(set(told)) > 1, "answers that are all alike prove nothing"

    def test_a_batch_gives_each_what_it_gets_alone(
        self, backend: ModelBackend, requests: Sequence[Any], alone: list[Any]
    ) -> None:
        self.assert_all_alike(backend.predict_all(requests), alone)
        order = random.Random(0).sample(range(len(requests)), len(requests))
        permuted = backend.predict_all([requests[i] for i in order])
        self.assert_all_alike(permuted, [alone[i] for i in order])

    def test_random_co_batches_give_each_what_it_gets_alone(
        self, backend: ModelBackend, requests: Sequence[Any]
    ) -> None:
        count = int(os.environ.get("SHEAF_CO_BATCHES", self.co_batches))
        drawn = draw_requests(requests, self.options, count)
        drawn = [each for each in drawn if backend.deterministic(each)]
        expected = [backend.predict_all([each])[0] for each in drawn]
        answered = [i for i, outcome in enumerate(expected) if not isinstance(outcome, Exception)]
        assert len(answered) > len(drawn) / 4, "most of what is drawn is refused"
        chance = random.Random(0)
        for _ in range(count):
            chosen = chance.sample(range(len(drawn)), chance.randint(2, min(6, len(drawn))))
            together = backend.predict_all([drawn[i] for i in chosen])
            self.assert_all_alike(together, [expected[i] for i in chosen])

    def test_concurrent_calls_through_the_engine_get_their_own_answers(
        self,
        settings: dict[str, Any],
        requests: Sequence[Any],
        alone: list[Any],
        refused: Sequence[tuple[Any, str, str]],
    ) -> None:
        bad = Refused(*refused[0])
        with self.served(settings) as runtime, ThreadPoolExecutor(CALLERS) as callers:

            def call(request: Any) -> Any:
                try:
                    return runtime.predict_now(request, timeout=120)
                except InvalidRequestError as error:
                    return error

            answers = list(callers.map(call, [*requests, bad.request, *requests]))
        assert_refused(answers.pop(len(requests)), bad)
        self.assert_all_alike(answers, [*alone, *alone])

    def test_streams_end_in_the_answer_of_a_call(
        self, settings: dict[str, Any], requests: Sequence[Any], alone: list[Any]
    ) -> None:
        if not self.backend_class.streams():
            pytest.skip(f"{self.backend_class.__name__}: it has no steps to stream")
        with self.served(settings) as runtime:
            before = process_state()
            stream = runtime.iter_stream(requests[0], timeout=120)
            events = [next(stream)]
            assert not changed(before), "while a stream is open"
            events += stream
            # One that is left in the middle leaves nothing behind.
            left = runtime.iter_stream(requests[-1], timeout=120)
            next(left)
            left.close()
            self.assert_alike(runtime.predict_now(requests[0], timeout=120), alone[0])
            assert not changed(before)
        *progress, last = events
        assert all(isinstance(event, ProgressEvent) for event in progress)
        assert isinstance(last, ResultEvent)
        self.assert_alike(last.response, alone[0])

    # The process and its memory.

    def test_nothing_global_changes(
        self, first: tuple[ModelBackend, list[str]], settings: dict[str, Any], requests: Sequence[Any]
    ) -> None:
        # A library may warn and log from its import on: that is its own.
        assert not set(first[1]) - {"warnings filters", "logging"}, "by the first load"
        stir()
        before = process_state()
        fresh = self.made(settings)
        fresh.load()
        assert not changed(before), "by load"
        fresh.warm_up()
        assert not changed(before), "by warm_up"
        for request in (requests[0], requests[-1]):
            fresh.predict_all([request])
            assert not changed(before), "by an answer"
        fresh.unload()
        assert not changed(before), "by unload"

    def test_two_models_of_the_family_keep_to_themselves(
        self, backend: ModelBackend, settings: dict[str, Any], neighbor: dict[str, Any], requests: Any
    ) -> None:
        before = fields_of(backend.predict(requests[0]))
        other = self.loaded(neighbor)
        (answer,) = other.predict_all([requests[0]])
        if neighbor != settings:
            assert isinstance(answer, Exception) or repr(fields_of(answer)) != repr(before)
        assert_alike(fields_of(backend.predict(requests[0])), before, 0)
        other.unload()
        assert_alike(fields_of(backend.predict(requests[0])), before, 0)

    def test_memory_comes_back_and_a_model_can_be_loaded_again(
        self, settings: dict[str, Any], requests: Sequence[Any], alone: list[Any]
    ) -> None:
        fresh = self.made(settings)
        with young_heap():
            fresh.load()
            tensors = tensors_of(fresh)
            assert "torch" not in self.libraries() or tensors, "no tensor is seen"
            fresh.predict(requests[0])
            fresh.unload()
            assert held_still(tensors) == 0, "tensors are held after unload"
        assert not fresh.keeps_contexts or len(fresh.contexts) == 0
        with pytest.raises(RuntimeError, match=r"load\(\) has not been called"):
            fresh.predict(requests[0])
        fresh.load()
        self.assert_alike(fresh.predict(requests[0]), alone[0])
        fresh.unload()

    # What may be missing.

    def test_a_missing_library_is_told_with_the_command_that_installs_it(
        self, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        info = self.backend_class.info
        assert info is not None
        for library in self.libraries() - set(self.unused_libraries):
            with monkeypatch.context() as patch:
                patch.setitem(sys.modules, library, None)
                for name in list(sys.modules):
                    if name.startswith(f"{library}."):
                        patch.setitem(sys.modules, name, None)
                    elif name.startswith(("sheaf.backends._families", "sheaf.backends._models")):
                        patch.delitem(sys.modules, name)
                with pytest.raises(ModuleNotFoundError, match=re.escape(install_command(info.extra))) as told:
                    self.made(settings).load()
                assert f" needs {told.value.name}, of the extra {info.extra}: " in str(told.value)
                assert (told.value.name or "").partition(".")[0] == library

    def test_a_checkpoint_that_is_not_there_is_told(self, settings: dict[str, Any], tmp_path: Path) -> None:
        with pytest.raises(OSError, match="nowhere"):
            self.made({**settings, "model_id": str(tmp_path / "nowhere")}).load()

    def test_a_file_that_a_checkpoint_lacks_is_told(self, settings: dict[str, Any], tmp_path: Path) -> None:
        assert self.needed_files, "name the files in `needed_files`"
        for name in self.needed_files:
            folder = shutil.copytree(settings["model_id"], tmp_path / name.replace("/", "-"))
            (folder / name).unlink()
            with pytest.raises(OSError, match=re.escape(Path(name).name)):
                self.made({**settings, "model_id": str(folder)}).load()

    def test_weights_that_a_checkpoint_lacks_are_never_made_up(
        self, settings: dict[str, Any], tmp_path: Path
    ) -> None:
        from safetensors.torch import load_file, save_file

        assert self.needed_weights, "name some weights in `needed_weights`"
        folder = shutil.copytree(settings["model_id"], tmp_path / "lacking")
        for file, lacking in self.needed_weights:
            whole = load_file(folder / file)
            rest = {name: weight for name, weight in whole.items() if name != lacking}
            assert len(rest) < len(whole), f"{file} has no {lacking}"
            save_file(rest, folder / file, {"format": "pt"})
            with pytest.raises(ValueError, match="lacks the weights"):
                self.made({**settings, "model_id": str(folder)}).load()
            save_file(whole, folder / file, {"format": "pt"})

    def test_half_precision_is_near_and_another_dtype_is_refused(
        self, settings: dict[str, Any], requests: Sequence[Any], alone: list[Any]
    ) -> None:
        half = self.loaded({**settings, **self.half_settings}).predict(requests[0])
        found, expected = fields_of(half), fields_of(alone[0])
        assert repr(found) != repr(expected), "the same to the last digit: it is no other precision"
        assert_alike(found, expected, self.half_tolerance)
        wrong = {**settings, **dict.fromkeys(self.half_settings, "int8")}
        with pytest.raises(ValueError, match="int8"):
            self.made(wrong).load()

    # Requests that cannot be served.

    def test_bad_input_is_refused_with_its_path_and_the_next_is_served(
        self, backend: ModelBackend, requests: Sequence[Any], alone: list[Any], refused: Any
    ) -> None:
        for bad in (Refused(*each) for each in refused):
            with pytest.raises(InvalidRequestError) as told:
                backend.check(bad.request)
            assert_refused(told.value, bad)
            assert all(fault.message for fault in told.value.errors)
            self.assert_alike(backend.predict(requests[0]), alone[0])

    def test_poison_in_any_place_of_a_batch_fails_alone(
        self, backend: ModelBackend, requests: Sequence[Any], alone: list[Any], poison: Any
    ) -> None:
        good = list(requests[:2])
        for bad in (Refused(*each) for each in poison):
            for place in range(len(good) + 1):
                outcomes = backend.predict_all([*good[:place], bad.request, *good[place:]])
                assert_refused(outcomes.pop(place), bad)
                self.assert_all_alike(outcomes, alone[: len(good)])

    # What it says of itself.

    def test_it_says_what_it_is_and_has_a_page(self) -> None:
        info = self.backend_class.info
        assert info is not None, "give the class an `info`"
        assert info.title
        assert info.libraries
        assert install_command(info.extra)
        assert (PAGES / f"{self.backend_class.__module__.rpartition('.')[2]}.md").is_file()

    @classmethod
    def libraries(cls) -> set[str]:
        return set() if cls.backend_class.info is None else set(cls.backend_class.info.libraries)


def assert_refused(outcome: object, bad: Refused) -> None:
    assert isinstance(outcome, InvalidRequestError), outcome
    assert [(fault.code, fault.path) for fault in outcome.errors] == [(bad.code, bad.path)]
