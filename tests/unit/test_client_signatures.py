"""What programs see of the client's methods: `inspect`, `help`, the completion of keywords in notebooks."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import pydoc
from collections.abc import Callable, Iterator
from enum import Enum
from inspect import Parameter
from typing import Any

import pytest
from pydantic_core import PydanticUndefined

from sheaf.spec import ModelSpec
from sheaf_client import AsyncSheaf, Sheaf, operations
from sheaf_client.contracts.time_series import TimeSeriesRequest
from sheaf_client.operations import Operation
from tests.contract.echo import EchoBackend

URL = "http://127.0.0.1:9"
#: Fields that the client fills in itself.
FILLED_IN = {"model_type", "model_name", "request_id", "operation"}
#: What all calls take, beside the fields.
COMMON = ["request", "model", "timeout", "extra_headers"]


def every_operation() -> Iterator[tuple[str, Operation[Any, Any]]]:
    """The resource and the operation."""
    for info in pkgutil.iter_modules(operations.__path__):
        module = importlib.import_module(f"sheaf_client.operations.{info.name}")
        for name in module.__all__:
            yield info.name, getattr(module, name)


OPERATIONS = [pytest.param(resource, op, id=f"{resource}.{op.name}") for resource, op in every_operation()]


SYNC, ASYNC = Sheaf(URL), AsyncSheaf(URL)
CLIENTS = {
    "sync": SYNC,
    "async": ASYNC,
    "raw": SYNC.with_raw_response,
    "async raw": ASYNC.with_raw_response,
}


def everywhere(resource: str, name: str) -> dict[str, Callable[..., Any]]:
    """A method of that name, of each kind of client."""
    return {kind: getattr(getattr(client, resource), name) for kind, client in CLIENTS.items()}


def plain(default: Any) -> Any:
    return default.value if isinstance(default, Enum) else default


@pytest.mark.parametrize(("resource", "operation"), OPERATIONS)
def test_an_operation_shows_the_fields_of_its_contract(resource: str, operation: Operation[Any, Any]) -> None:
    fields = {n: f for n, f in operation.request.model_fields.items() if n not in FILLED_IN}
    for kind, method in everywhere(resource, operation.name).items():
        shown = inspect.signature(method).parameters
        assert list(shown)[:2] == COMMON[:2]
        assert list(shown)[-2:] == COMMON[2:]
        assert shown.keys() - set(COMMON) == fields.keys(), kind
        assert shown["request"].kind is Parameter.POSITIONAL_ONLY
        assert {p.kind for n, p in shown.items() if n != "request"} == {Parameter.KEYWORD_ONLY}
        assert all(p.annotation is not Parameter.empty for p in shown.values())
        for name, field in fields.items():
            default = shown[name].default
            assert (default is Parameter.empty) == field.is_required(), name
            if field.default is not PydanticUndefined:
                assert plain(default) == plain(field.default), name
            elif not field.is_required() and str(default) != "...":
                assert default == field.get_default(call_default_factory=True), name


@pytest.mark.parametrize(("resource", "operation"), OPERATIONS)
def test_all_kinds_of_clients_show_the_same_keywords(resource: str, operation: Operation[Any, Any]) -> None:
    response = operation.response.__name__
    shown = {k: inspect.signature(m) for k, m in everywhere(resource, operation.name).items()}
    first, *others = [list(signature.parameters.values()) for signature in shown.values()]
    assert all(other == first for other in others)
    assert {kind: str(signature.return_annotation) for kind, signature in shown.items()} == {
        "sync": response,
        "async": response,
        "raw": f"RawResponse[{response}]",
        "async raw": f"RawResponse[{response}]",
    }
    with pytest.raises(TypeError, match="position"):
        everywhere(resource, operation.name)["raw"](1, 2)
    many = {k: inspect.signature(m) for k, m in everywhere(resource, f"{operation.name}_many").items()}
    assert {tuple(signature.parameters) for signature in many.values()} == {
        ("requests", "timeout", "extra_headers")
    }


def test_streams_show_them_too() -> None:
    forecast = inspect.signature(SYNC.time_series.forecast)
    shown = {k: inspect.signature(m) for k, m in everywhere("time_series", "stream").items()}
    assert all(signature.parameters == forecast.parameters for signature in shown.values())
    events = "Stream[TimeSeriesResponse, ProgressEvent]"
    assert {kind: str(signature.return_annotation) for kind, signature in shown.items()} == {
        "sync": events,
        "async": f"Async{events}",
        "raw": f"Raw{events}",
        "async raw": f"AsyncRaw{events}",
    }


def test_a_client_of_models_in_this_process_shows_them_too() -> None:
    spec = ModelSpec(name="echo", backend_cls=EchoBackend.of("time_series"))
    with Sheaf.local([spec]) as client:
        shown = inspect.signature(client.time_series.forecast)
    assert shown == inspect.signature(SYNC.time_series.forecast)


def test_coroutines_are_seen_as_such() -> None:
    for kind, method in everywhere("time_series", "forecast").items():
        assert inspect.iscoroutinefunction(method) == kind.startswith("async"), kind
        assert method.__name__ == "forecast"


def test_help_reads_as_the_source_does() -> None:
    for method in everywhere("time_series", "forecast").values():
        text = pydoc.plain(pydoc.render_doc(method))
        assert "forecast(request: TimeSeriesRequest | None = None, /, *, model: str | None = None" in text
        assert "horizon: int, frequency: Frequency | FrequencyLike, history: SeriesLike | None = None" in text
        assert "output_mode: OutputMode | OutputModeLike = 'mean'" in text
        assert "request: The whole request instead of the keywords below." in text
        assert "whole:" not in text
        assert "given" not in text.partition("Forecast a series.")[0]


def test_an_object_that_stands_for_fields_is_shown_as_the_request() -> None:
    shown = inspect.signature(SYNC.materials.compute).parameters["request"]
    assert str(shown.annotation) == "MaterialsRequest | StructureLike | None"


def test_a_signature_binds_what_the_call_takes() -> None:
    signature = inspect.signature(SYNC.time_series.forecast)
    request = TimeSeriesRequest(model_name="ets", history=[1.0], horizon=1, frequency="1d")
    assert signature.bind(request, timeout=3).arguments == {"request": request, "timeout": 3}
    assert signature.bind(horizon=3, frequency="1d").arguments == {"horizon": 3, "frequency": "1d"}
    for wrong in ({"horizon": 3}, {"horizon": 3, "frequency": "1d", "horizn": 3}):
        with pytest.raises(TypeError, match=r"'(frequency|horizn)'"):
            signature.bind(**wrong)
    with pytest.raises(TypeError, match="too many positional"):
        signature.bind(request, request)


def test_options_given_as_a_mapping_of_keywords_are_shown_one_by_one() -> None:
    for kind in (SYNC.time_series, ASYNC.time_series):
        frame = inspect.signature(kind.forecast_frame)
        needed = [n for n, p in frame.parameters.items() if p.default is Parameter.empty]
        assert needed == ["frame", "horizon", "time_col", "target_col"]
        assert frame.parameters.keys() >= {"future_df", "errors", "id_col", "quantile_levels", "timeout"}
        assert str(frame.return_annotation) == "FrameT | FrameForecast"
    for method in (SYNC.with_options, Sheaf.local, AsyncSheaf.local, Sheaf.asgi, AsyncSheaf.asgi):
        names = inspect.signature(method).parameters.keys()
        assert names >= {"model", "timeout", "max_retries", "headers", "adapters"}
