"""The model that a test of a backend is about: what to load and to ask, by fixtures that the test writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest

from sheaf.backends.base import ModelBackend
from sheaf.engine import ModelRuntime
from sheaf.spec import ModelSpec
from sheaf_client.contracts.base import BaseRequest
from sheaf_client.errors import InvalidRequestError
from tests.backends.answers import assert_alike

PAGES = Path(__file__).parents[3] / "docs/backends"


class Refused(NamedTuple):
    """A request that the contract allows and the model cannot serve."""

    request: Any
    code: str
    path: str


class ModelUnderTest:
    """What a test gives, what is made of it, and what may differ from the defaults."""

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

    #: What its libraries change of the process as they are imported, by the names of `process_state`.
    import_changes: ClassVar[tuple[str, ...]] = ("warnings filters", "logging")
    #: Kinds of objects that a library keeps for itself, whoever let go of the model.
    kept_by_libraries: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        unknown = [name for name in cls.exempt if not callable(getattr(cls, name, None))]
        assert not unknown, f"{cls.__name__} is exempt from what is no check: {unknown}"
        mute = [name for name, reason in cls.exempt.items() if not reason.strip()]
        assert not mute, f"{cls.__name__} is exempt without a reason: {mute}"

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
    def neighbor(self) -> dict[str, Any] | None:
        """The settings of another model of the family, which is loaded beside the first."""
        return None

    @pytest.fixture(scope="class")
    def backend(self, settings: dict[str, Any]) -> Iterator[ModelBackend]:
        """The loaded backend."""
        backend = self.loaded(settings)
        yield backend
        backend.unload()

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
        runtime = ModelRuntime(cls.spec(settings))
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

    @classmethod
    def libraries(cls) -> set[str]:
        return set() if cls.backend_class.info is None else set(cls.backend_class.info.libraries)


def assert_refused(outcome: object, bad: Refused) -> None:
    assert isinstance(outcome, InvalidRequestError), outcome
    assert [(fault.code, fault.path) for fault in outcome.errors] == [(bad.code, bad.path)]
