"""The kit itself: a backend that keeps its promises passes, and each that breaks one is found."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from sheaf.api.time_series import TimeSeriesRequest, TimeSeriesResponse
from sheaf.backends._shared.loading import import_libraries, loaded
from sheaf.backends.base import ModelBackend, respond
from sheaf.backends.info import BackendInfo
from sheaf_client.contracts.problem import Fault
from sheaf_client.errors import InvalidRequestError
from tests.backends.conformance import CHECKPOINT_CHECKS, BackendConformance

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch


class Repeating(ModelBackend[TimeSeriesRequest, TimeSeriesResponse]):
    """Repeats the last value times a weight; what an author without a fork may write."""

    model_type = "time_series"
    info: ClassVar[BackendInfo | None] = BackendInfo(title="Repeating", extra="chronos", libraries=("torch",))

    def __init__(self, *, weight: float = 1.0, dtype: str = "float32") -> None:
        self.given, self.dtype = weight, dtype
        self.weight: Any = None

    def load(self) -> None:
        import_libraries(self)
        if self.dtype not in {"float32", "bfloat16"}:
            raise ValueError(f"dtype must be float32 or bfloat16, not {self.dtype}")
        self.weight = torch.tensor(self.given, dtype=getattr(torch, self.dtype))

    def unload(self) -> None:
        self.weight = None

    def check(self, request: TimeSeriesRequest) -> None:
        if request.static_covariates:
            fault = Fault(code="unsupported", path="/static_covariates", message="It knows of none.")
            raise InvalidRequestError("It cannot.", errors=[fault])

    def value(self, request: TimeSeriesRequest, together: int) -> Any:
        return loaded(self.weight) * float(np.asarray(request.history, float)[-1])

    def batch_predict(self, requests: Sequence[TimeSeriesRequest]) -> list[TimeSeriesResponse | Exception]:
        return [self.answer(request, len(requests)) for request in requests]

    def answer(self, request: TimeSeriesRequest, together: int = 1) -> TimeSeriesResponse:
        mean = [float(self.value(request, together))] * request.horizon
        fields = {"mean": mean, "horizon": request.horizon, "frequency": request.frequency}
        return respond(request, TimeSeriesResponse, **fields)


def ask(value: float, **fields: Any) -> TimeSeriesRequest:
    body = {"model_name": "m", "history": [0.0, value], "horizon": 2, "frequency": "1h", **fields}
    return TimeSeriesRequest.model_validate(body)


REQUESTS = [ask(1.1), ask(7.7, horizon=5), ask(-3.3, horizon=1)]
REFUSED = [(ask(1.0, static_covariates={"x": 1.0}), "unsupported", "/static_covariates")]


def direct(request: TimeSeriesRequest) -> dict[str, Any]:
    return {"mean": [np.asarray(request.history, float)[-1]] * request.horizon}


class TestRepeating(BackendConformance):
    backend_class: ClassVar[type[ModelBackend]] = Repeating
    tolerance = 1e-6
    options: ClassVar[Mapping[str, Sequence[Any]]] = {"horizon": [1, 9], "quantile_levels": None}  # type: ignore[dict-item]
    exempt: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(CHECKPOINT_CHECKS, "its weight is a setting"),
        "test_it_says_what_it_is_and_has_a_page": "it is no backend of this repository",
    }

    @pytest.fixture(scope="class")
    def settings(self) -> dict[str, Any]:
        return {"weight": 1.0}

    @pytest.fixture(scope="class")
    def neighbor(self) -> dict[str, Any]:
        return {"weight": 3.0}

    @pytest.fixture(scope="class")
    def requests(self) -> list[TimeSeriesRequest]:
        return REQUESTS

    @pytest.fixture(scope="class")
    def direct(self) -> Callable[[TimeSeriesRequest], dict[str, Any]]:
        return direct

    @pytest.fixture(scope="class")
    def refused(self) -> list[tuple[TimeSeriesRequest, str, str]]:
        return REFUSED


class Wrong(Repeating):
    def value(self, request: TimeSeriesRequest, together: int) -> Any:
        return super().value(request, together) * 1.001


class Leaking(Repeating):
    def value(self, request: TimeSeriesRequest, together: int) -> Any:
        return super().value(request, together) + 1e-3 * (together - 1)


class Mixing(Repeating):
    def batch_predict(self, requests: Sequence[TimeSeriesRequest]) -> list[TimeSeriesResponse | Exception]:
        answers = super().batch_predict(requests)
        return [answers[i] for i in np.argsort([np.asarray(r.history)[-1] for r in requests])]


class Seeding(Repeating):
    def load(self) -> None:
        super().load()
        torch.manual_seed(0)


class Filtering(Repeating):
    def value(self, request: TimeSeriesRequest, together: int) -> Any:
        warnings.simplefilter("ignore")
        return super().value(request, together)


class Exporting(Repeating):
    def unload(self) -> None:
        super().unload()
        os.environ["SHEAF_OF_THE_TEST"] = str(id(self))


class Sharing(Repeating):
    shared: ClassVar[list[Any]] = []

    def load(self) -> None:
        super().load()
        self.shared[:] = [self.weight]

    def value(self, request: TimeSeriesRequest, together: int) -> Any:
        return self.shared[0] * super().value(request, together)


class Holding(Repeating):
    held: ClassVar[list[Any]] = []

    def load(self) -> None:
        super().load()
        self.held.append(self.weight)


class Lasting(Repeating):
    def unload(self) -> None: ...


class Terse(Repeating):
    def load(self) -> None:
        import torch  # noqa: F401

        super().load()


class Deaf(Repeating):
    def load(self) -> None:
        self.weight = torch.tensor(self.given)


class Lenient(Repeating):
    def check(self, request: TimeSeriesRequest) -> None: ...


class Misleading(Repeating):
    def check(self, request: TimeSeriesRequest) -> None:
        if request.static_covariates:
            raise InvalidRequestError("No.", errors=[Fault(code="unsupported", path="", message="No.")])


class Stumbling(Lenient):
    def value(self, request: TimeSeriesRequest, together: int) -> Any:
        super_check = Repeating.check
        super_check(self, request)
        return super().value(request, together)


class Nameless(Repeating):
    info: ClassVar[BackendInfo | None] = None


@pytest.mark.parametrize(
    ("broken", "check", "error"),
    [
        (Wrong, "test_answers_equal_the_librarys_own_call", AssertionError),
        (Leaking, "test_a_batch_gives_each_what_it_gets_alone", AssertionError),
        (Leaking, "test_random_co_batches_give_each_what_it_gets_alone", AssertionError),
        (Mixing, "test_a_batch_gives_each_what_it_gets_alone", AssertionError),
        (Mixing, "test_random_co_batches_give_each_what_it_gets_alone", AssertionError),
        (Wrong, "test_concurrent_calls_through_the_engine_get_their_own_answers", AssertionError),
        (Seeding, "test_nothing_global_changes", AssertionError),
        (Filtering, "test_nothing_global_changes", AssertionError),
        (Exporting, "test_nothing_global_changes", AssertionError),
        (Sharing, "test_two_models_of_the_family_keep_to_themselves", AssertionError),
        (Holding, "test_memory_comes_back_and_a_model_can_be_loaded_again", AssertionError),
        (Lasting, "test_memory_comes_back_and_a_model_can_be_loaded_again", AssertionError),
        (
            Terse,
            "test_a_missing_library_is_told_with_the_command_that_installs_it",
            AssertionError,
        ),
        (Deaf, "test_half_precision_is_near_and_another_dtype_is_refused", AssertionError),
        (Lenient, "test_bad_input_is_refused_with_its_path_and_the_next_is_served", pytest.fail.Exception),
        (Misleading, "test_bad_input_is_refused_with_its_path_and_the_next_is_served", AssertionError),
        (Stumbling, "test_poison_in_any_place_of_a_batch_fails_alone", InvalidRequestError),
        (Nameless, "test_it_says_what_it_is_and_has_a_page", AssertionError),
    ],
)
def test_a_broken_promise_is_found(
    broken: type[Repeating],
    check: str,
    error: type[BaseException],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SHEAF_OF_THE_TEST", "")
    kit = type("Kit", (TestRepeating,), {"backend_class": broken})()
    sound, backend = Repeating(), broken()
    sound.load()
    backend.load()
    given = {
        "backend": backend,
        "first": (backend, []),
        "settings": {"weight": 1.0},
        "neighbor": {"weight": 3.0},
        "requests": REQUESTS,
        "direct": direct,
        "alone": [sound.predict(request) for request in REQUESTS],
        "refused": REFUSED,
        "poison": REFUSED,
        "monkeypatch": monkeypatch,
        "tmp_path": tmp_path,
    }
    run = getattr(kit, check)
    with pytest.raises(error), torch.random.fork_rng(devices=[]):
        run(**{name: given[name] for name in inspect.signature(run).parameters})


def test_an_exemption_from_what_is_no_check_is_told() -> None:
    with pytest.raises(AssertionError, match=r"exempt from what is no check: \['test_nothing'\]"):
        type("Kit", (BackendConformance,), {"exempt": {"test_nothing": "for no reason"}})
