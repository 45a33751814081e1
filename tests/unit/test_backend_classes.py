"""What a class must be to be a backend: told where it is deployed, by the spec."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, ClassVar

import pytest
from pydantic import ValidationError

from sheaf import registry
from sheaf.api.base import ModelType
from sheaf.api.tabular import TabularRequest
from sheaf.api.time_series import TimeSeriesRequest, TimeSeriesResponse
from sheaf.backends.base import BackendDiedError, ModelBackend
from sheaf.backends.chronos import Chronos2Backend
from sheaf.backends.esmc import ESMCBackend
from sheaf.engine import ModelRuntime
from sheaf.local import describe
from sheaf.registry import backend_names, find_backend, register_backend
from sheaf.spec import ModelSpec
from sheaf_client.errors import BackendError, InvalidRequestError
from tests.conftest import MakeRequest
from tests.echoes import Echo


class Single(ModelBackend):
    """A backend in the published form: its model type is a property, and it answers one request at a time."""

    def __init__(self, add: float = 0.0) -> None:
        self.add = add

    @property
    def model_type(self) -> str:  # type: ignore[override]
        return ModelType.TIME_SERIES

    def load(self) -> None:
        self.calls: list[float] = []

    def predict(self, request: TimeSeriesRequest) -> TimeSeriesResponse:
        assert request.history is not None
        value = request.history[-1]
        assert isinstance(value, float)
        self.calls.append(value)
        if value < 0:
            raise ArithmeticError("no such thing")
        return Echo(add=self.add).answer(request)


class Chosen(Single):
    """One whose settings say which contract it serves."""

    def __init__(self, model_type: str) -> None:
        super().__init__()
        self._model_type = model_type

    @property
    def model_type(self) -> str:  # type: ignore[override]
        return self._model_type


def test_a_property_says_the_model_type() -> None:
    spec = ModelSpec(name="m", backend_cls=Single)
    assert spec.model_type == "time_series"
    assert type(spec.model_type) is str
    assert (
        ModelSpec(name="m", model_type=ModelType.TIME_SERIES, backend_cls=Single).model_type == "time_series"
    )
    assert describe(spec, ready=True).operations == ["/m/time_series/forecast"]
    chosen = ModelSpec(name="m", backend_cls=Chosen, backend_kwargs={"model_type": "depth"})
    assert chosen.model_type == "depth"
    with pytest.raises(ValidationError, match="backend 'Single' serves time_series, not tabular"):
        ModelSpec(name="m", model_type="tabular", backend_cls=Single)
    with pytest.raises(ValidationError, match=r"backend_kwargs do not fit Single: .*'ad'"):
        ModelSpec(name="m", backend_cls=Single, backend_kwargs={"ad": 1})


def test_predict_alone_answers_batches_with_each_fault_its_own(make_request: MakeRequest) -> None:
    runtime = ModelRuntime(
        ModelSpec(
            name="m",
            backend_cls=Single,
            backend_kwargs={"add": 0.5},
            batch_policy={  # type: ignore[arg-type]
                "wait": "always",
                "timeout_ms": 300,
                "max_batch_size": 3,
                "target_ms": 60_000,
            },
        )
    )
    runtime.start()
    try:
        good, bad, other = (runtime.submit(make_request(value)) for value in (1.0, -1.0, 2.0))
        assert good.result(20).mean == [1.5, 1.5]
        # The first goes alone, which tells how long a call takes.
        assert other.result(20).metadata.usage.batch_size == 2
        with pytest.raises(BackendError):
            bad.result(20)
        assert runtime.backend.calls == [1.0, -1.0, 2.0]  # type: ignore[attr-defined]
    finally:
        runtime.stop()


def test_what_ends_the_model_ends_the_batch(make_request: MakeRequest) -> None:
    class Dying(Single):
        def predict(self, request: TimeSeriesRequest) -> TimeSeriesResponse:
            raise BackendDiedError("it is gone")

    backend = Dying()
    with pytest.raises(BackendDiedError):
        backend.batch_predict([make_request(1.0)])


class Nothing(ModelBackend):
    """One that writes nothing."""

    model_type = "time_series"


class Typeless(Echo):
    """One that names another thing for its model type."""

    model_type: ClassVar[Any] = None


class Unknown(Echo):
    """One of a model type that the schema does not have."""

    model_type = "no_such_type"


class Uncontracted(Echo):
    """One of a model type that has no contract yet."""

    model_type = ModelType.NEURAL_OPERATOR


class Silent(ModelBackend):
    """One without a model type."""

    def load(self) -> None: ...

    def predict(self, request: Any) -> Any: ...


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Nothing, "the backend Nothing does not write load and batch_predict or predict"),
        (Typeless, "the backend Typeless says no `model_type`: expected one of audio, "),
        (Silent, "the backend Silent says no `model_type`: expected one of audio, "),
        (Unknown, "the backend Unknown says `model_type` 'no_such_type': expected one of audio, "),
        (Uncontracted, "says `model_type` 'neural_operator': expected one of audio, "),
        (dict, "dict is no backend: it does not extend sheaf.backends.base.ModelBackend"),
        (Echo(), "is no class"),
        ("tests.echoes.Echo", "is no class"),
    ],
    ids=lambda given: given if isinstance(given, str) else getattr(given, "__name__", "an object"),
)
def test_what_is_no_backend_is_refused_by_the_spec(given: Any, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ModelSpec(name="m", backend_cls=given)
    assert message in str(caught.value)


def test_a_backend_that_writes_neither_says_so_where_it_is_called(make_request: MakeRequest) -> None:
    class Half(ModelBackend):
        model_type = "time_series"

        def load(self) -> None: ...

    for call in (lambda b, r: b.predict(r), lambda b, r: b.batch_predict([r])):
        with pytest.raises(NotImplementedError, match="Half writes neither batch_predict nor predict"):
            call(Half(), make_request(1.0))


def test_a_request_of_another_contract_is_told_which_is_served() -> None:
    request = TabularRequest(
        model_name="m", context_X=[[1.0]], context_y=[1], query_X=[[1.0]], task="classification"
    )
    for backend in (Chronos2Backend("/models/none"), Echo()):
        with pytest.raises(InvalidRequestError, match="This model serves time_series"):
            backend.predict(request)  # type: ignore[arg-type]


def test_a_backend_has_aliases(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_backend("chronos") is find_backend("chronos2") is Chronos2Backend
    assert "chronos" not in backend_names()
    spec = ModelSpec(name="m", backend="chronos", backend_kwargs={"model_id": "amazon/chronos-bolt-base"})
    assert (spec.model_type, spec.backend_class) == ("time_series", Chronos2Backend)
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    register_backend("chronos")(Echo)
    assert find_backend("chronos") is Echo  # a name goes before an alias
    assert find_backend("chronos2") is Chronos2Backend


def test_a_setting_in_two_spellings_must_agree() -> None:
    assert ESMCBackend(device="cpu", device_map="cpu").device == "cpu"
    assert ESMCBackend(device_map="cpu").device == ESMCBackend(device="cpu").device == "cpu"
    with pytest.raises(TypeError, match=r"device='cpu' and device_map='auto' are two spellings"):
        ESMCBackend(device="cpu", device_map="auto")
    placed = Chronos2Backend("/models/none", "cpu", "bfloat16")
    assert (placed.model_id, placed.device, placed.dtype) == ("/models/none", "cpu", "bfloat16")


class Awaited(Single):
    """One that expects to be awaited."""

    async def predict(self, request: TimeSeriesRequest) -> TimeSeriesResponse:  # type: ignore[override]
        return super().predict(request)


class AwaitedSteps(Single):
    """One whose steps are an asynchronous iterator."""

    async def stream(self, request: TimeSeriesRequest) -> AsyncIterator[TimeSeriesResponse]:  # type: ignore[override]
        yield self.predict(request)


@pytest.mark.parametrize(("cls", "name"), [(Awaited, "predict"), (AwaitedSteps, "stream")])
def test_a_method_that_would_have_to_be_awaited_is_refused(cls: type[ModelBackend], name: str) -> None:
    with pytest.raises(ValidationError, match=f"{cls.__name__}.{name} is `async`: .* plain function"):
        ModelSpec(name="m", backend_cls=cls)


def test_a_name_and_a_class_must_be_one_backend() -> None:
    with pytest.raises(ValidationError, match=r"`backend` is 'sklearn'.*`backend_cls` another class"):
        ModelSpec(name="m", backend="sklearn", backend_cls=Echo)
    both = ModelSpec(
        name="m", backend="chronos2", backend_cls=Chronos2Backend, backend_kwargs={"model_id": "x"}
    )
    assert both.backend_class is Chronos2Backend
    assert ModelSpec(name="m", backend="only-here", backend_cls=Echo).backend_name == "only-here"
