"""The kit itself: a backend that keeps its promises passes, and each that breaks one is found."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from sheaf.api.time_series import TimeSeriesRequest, TimeSeriesResponse
from sheaf.backends._shared.loading import import_libraries, loaded
from sheaf.backends.base import ModelBackend, respond
from sheaf.backends.info import BackendInfo
from sheaf_client import ProgressEvent
from sheaf_client.contracts.problem import Fault
from sheaf_client.errors import InvalidRequestError
from tests.backends.conformance import CHECKPOINT_CHECKS, BackendConformance

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch


CONCURRENT = "test_concurrent_calls_through_the_engine_get_their_own_answers"
HALF_PRECISION = "test_half_precision_is_near_and_another_dtype_is_refused"
BAD_INPUT = "test_bad_input_is_refused_with_its_path_and_the_next_is_served"
FIRST_LOAD = "test_nothing_global_changes_by_the_first_load_of_a_process"
MISSING_LIBRARY = "test_a_missing_library_is_told_with_the_command_that_installs_it"
TWO_MODELS = "test_two_models_of_the_family_keep_to_themselves"


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


class Plain(Repeating):
    """Holds an array, and no tensor."""

    info: ClassVar[BackendInfo | None] = BackendInfo(title="Plain", extra="chronos", libraries=("pandas",))

    def load(self) -> None:
        self.weight = np.asarray(self.given)


class Clinging(Plain):
    held: ClassVar[list[Any]] = []

    def load(self) -> None:
        super().load()
        self.held.append(self.weight)


class Fitting(Plain):
    """Holds an object of its library, made for an answer."""

    held: ClassVar[list[Any]] = []

    def value(self, request: TimeSeriesRequest, together: int) -> Any:
        import pandas

        self.fit = pandas.Series([1.0])
        self.held.append(self.fit)
        return super().value(request, together)


class Empty(Plain):
    """Holds nothing that can be watched."""

    def load(self) -> None:
        self.weight = self.given


class FirstSeeding(Repeating):
    """Changes what a second load would change no more."""

    def load(self) -> None:
        os.environ["SHEAF_FIRST"] = "set"
        super().load()


class Independent(Repeating):
    """Needs no library, whatever it says."""

    info: ClassVar[BackendInfo | None] = BackendInfo(title="Independent", extra="chronos", libraries=())


class Silent(Repeating):
    """Says that it streams, and tells of no step."""

    def stream(self, request: TimeSeriesRequest) -> Iterator[ProgressEvent | TimeSeriesResponse]:
        yield self.predict(request)

    @classmethod
    def streams(cls) -> bool:
        return True


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
    ("broken", "check", "error", "told"),
    [
        (Wrong, "test_answers_equal_the_librarys_own_call", AssertionError, "Not equal"),
        (Leaking, "test_a_batch_gives_each_what_it_gets_alone", AssertionError, "Not equal"),
        (Leaking, "test_random_co_batches_give_each_what_it_gets_alone", AssertionError, "Not equal"),
        (Mixing, "test_a_batch_gives_each_what_it_gets_alone", AssertionError, ""),
        (Mixing, "test_random_co_batches_give_each_what_it_gets_alone", AssertionError, ""),
        (
            Wrong,
            CONCURRENT,
            AssertionError,
            "Not equal",
        ),
        (Silent, "test_streams_end_in_the_answer_of_a_call", AssertionError, "tells of no step"),
        (Seeding, "test_nothing_global_changes", AssertionError, "by load"),
        (Filtering, "test_nothing_global_changes", AssertionError, "by an answer"),
        (Exporting, "test_nothing_global_changes", AssertionError, "by unload"),
        (FirstSeeding, FIRST_LOAD, AssertionError, "environment: SHEAF_FIRST"),
        (Sharing, TWO_MODELS, AssertionError, "Not equal"),
        (Holding, "test_memory_comes_back", AssertionError, "held after unload"),
        (Lasting, "test_memory_comes_back", AssertionError, "held after unload"),
        (Clinging, "test_memory_comes_back", AssertionError, "held after unload"),
        (Fitting, "test_memory_comes_back", AssertionError, "held after unload"),
        (Empty, "test_memory_comes_back", AssertionError, "nothing is seen"),
        (Lasting, "test_a_model_can_be_loaded_again", pytest.fail.Exception, "DID NOT RAISE"),
        (Terse, MISSING_LIBRARY, AssertionError, ""),
        (Plain, MISSING_LIBRARY, pytest.fail.Exception, "DID NOT RAISE"),
        (Independent, MISSING_LIBRARY, AssertionError, "no library is left"),
        (
            Deaf,
            HALF_PRECISION,
            AssertionError,
            "no other precision",
        ),
        (
            Lenient,
            BAD_INPUT,
            pytest.fail.Exception,
            "DID NOT RAISE",
        ),
        (
            Misleading,
            BAD_INPUT,
            AssertionError,
            "/static_covariates",
        ),
        (Stumbling, "test_poison_in_any_place_of_a_batch_fails_alone", InvalidRequestError, ""),
        (Nameless, "test_it_says_what_it_is_and_has_a_page", AssertionError, "give the class an `info`"),
    ],
)
def test_a_broken_promise_is_found(
    broken: type[Repeating],
    check: str,
    error: type[BaseException],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SHEAF_OF_THE_TEST", "")
    with pytest.raises(error, match=told), torch.random.fork_rng(devices=[]):
        run_check(broken, check, tmp_path, monkeypatch)


def run_check(
    backend_class: type[Repeating], check: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **given: Any
) -> None:
    """One check of the kit, on a backend of that class."""
    kit = type("Kit", (TestRepeating,), {"backend_class": backend_class})()
    sound, backend = Repeating(), backend_class()
    sound.load()
    backend.load()
    given = {
        "backend": backend,
        "settings": {"weight": 1.0},
        "neighbor": {"weight": 3.0},
        "requests": REQUESTS,
        "direct": direct,
        "alone": [sound.predict(request) for request in REQUESTS],
        "refused": REFUSED,
        "poison": REFUSED,
        "monkeypatch": monkeypatch,
        "tmp_path": tmp_path,
        **given,
    }
    run = getattr(kit, check)
    run(**{name: given[name] for name in inspect.signature(run).parameters})


@pytest.mark.parametrize(
    ("given", "check", "told"),
    [
        ({"refused": []}, BAD_INPUT, "refuses"),
        ({"poison": []}, "test_poison_in_any_place_of_a_batch_fails_alone", "name a request that fails"),
        ({"neighbor": None}, TWO_MODELS, "write a fixture `neighbor`"),
        ({"neighbor": {"weight": 1.0}}, TWO_MODELS, "the same model"),
        ({"neighbor": {"weight": 1.0, "dtype": "float32"}}, TWO_MODELS, "in another way"),
        ({"direct": lambda _: {}}, "test_answers_equal_the_librarys_own_call", "no field is compared"),
        ({"alone": [], "requests": []}, "test_a_batch_gives_each_what_it_gets_alone", "prove nothing"),
    ],
)
def test_a_check_that_would_see_nothing_fails(
    given: dict[str, Any], check: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AssertionError, match=told):
        run_check(Repeating, check, tmp_path, monkeypatch, **given)


def test_libraries_that_are_all_named_as_unused_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for unused in (("torch",), ("torch", "sklearn"), ("sklearn",)):
        monkeypatch.setattr(TestRepeating, "unused_libraries", unused)
        with pytest.raises(AssertionError, match="no library is left"):
            run_check(Repeating, MISSING_LIBRARY, tmp_path, monkeypatch)


def test_an_exemption_without_a_reason_is_told() -> None:
    with pytest.raises(AssertionError, match=r"exempt without a reason: \['test_memory_comes_back'\]"):
        type("Kit", (BackendConformance,), {"exempt": {"test_memory_comes_back": " "}})


def test_an_exemption_from_what_is_no_check_is_told() -> None:
    with pytest.raises(AssertionError, match=r"exempt from what is no check: \['test_nothing'\]"):
        type("Kit", (BackendConformance,), {"exempt": {"test_nothing": "for no reason"}})
