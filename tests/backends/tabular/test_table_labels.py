"""Labels and columns as people hold them, through whole clients and as raw JSON, to a model of tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from starlette.testclient import TestClient

from sheaf.backends.sklearn import SklearnBackend
from sheaf.http import create_app
from sheaf.local import LocalModels
from sheaf.spec import ModelSpec
from sheaf_client import Sheaf
from sheaf_client.errors import InvalidRequestError
from tests.backends.tabular.table_cases import numbers

SPECS = [ModelSpec(name="trees", backend_cls=SklearnBackend, backend_kwargs={"max_iter": 5})]
ROWS = numbers(40, 2)
FLAGS = ROWS[:, 0] > 0


@pytest.fixture(scope="module")
def models() -> Iterator[LocalModels]:
    held = LocalModels.start(SPECS)
    yield held
    held.stop()


@pytest.fixture(params=["local", "json", "msgpack"])
def client(request: pytest.FixtureRequest, models: LocalModels) -> Iterator[Sheaf]:
    if request.param == "local":
        with Sheaf.local(SPECS) as held:
            yield held
        return
    binary = "always" if request.param == "msgpack" else "never"
    with Sheaf.asgi(create_app(models), binary=binary) as held:
        yield held


@pytest.fixture
def http(models: LocalModels) -> TestClient:
    return TestClient(create_app(models))


def predict(client: Sheaf, labels: Any, rows: Any = ROWS, **fields: Any) -> Any:
    return client.tabular.predict(model="trees", context_X=rows, context_y=labels, query_X=ROWS[:9], **fields)


def told(client: Sheaf, labels: Any, **fields: Any) -> list[tuple[str, str]]:
    with pytest.raises(InvalidRequestError) as caught:
        predict(client, labels, **fields)
    return [(fault.path, fault.message) for fault in caught.value.errors]


def test_flags_are_two_classes(client: Sheaf) -> None:
    for labels in (FLAGS, FLAGS.tolist(), pd.Series(FLAGS, dtype="boolean"), FLAGS[:, None].astype(float)):
        answer = predict(client, labels, output_mode="probabilities")
        assert answer.classes == [0, 1]
        assert answer.predictions == FLAGS[:9].tolist() == [label == 1 for label in answer.predictions]
        assert {type(label) for label in (*answer.classes, *answer.predictions)} == {int}


def test_a_frame_of_one_column_holds_names_that_come_back(client: Sheaf) -> None:
    frame = pd.DataFrame({"y": pd.Categorical(np.where(FLAGS, "up", "down"))})
    assert predict(client, frame).classes == ["down", "up"]


def test_fractions_are_quantities(client: Sheaf) -> None:
    [(path, message)] = told(client, ROWS[:, 0])
    assert path == "/context_y/0"
    assert 'for quantities give task="regression"' in message
    assert told(client, np.where(FLAGS, 1e300, 0.0))[0][0].startswith("/context_y/")
    assert len(predict(client, ROWS[:, :1], task="regression").predictions) == 9


def test_labels_that_are_missing_are_told_once(client: Sheaf) -> None:
    labels = np.where(FLAGS, 1.0, np.nan)
    [(path, message)] = told(client, labels)
    assert path == f"/context_y/{int(np.flatnonzero(~FLAGS)[0])}"
    assert message.startswith(f"{(~FLAGS).sum()} labels are missing, the first of row ")


def test_an_empty_column_counts_as_missing(client: Sheaf) -> None:
    frame = pd.DataFrame({"a": ROWS[:, 0], "b": pd.Series([None] * 40, dtype="category")})
    asked = pd.DataFrame({"a": [-1.5, 1.5, 1.5], "b": ["x", None, "y"]})
    answer = client.tabular.predict(model="trees", context_X=frame, context_y=FLAGS, query_X=asked)
    assert answer.predictions == [0, 1, 1]
    # The context is kept: asked again, by what was kept of it.
    again = client.tabular.predict(
        model="trees", context_id=answer.context_id, query_X=[[-1.5, 3.0], [1.5, "z"]]
    )
    assert again.predictions == [0, 1]


def test_text_among_numbers_is_told_with_the_name_of_the_column(client: Sheaf) -> None:
    frame = pd.DataFrame({"area": ROWS[:, 0], "rooms": ROWS[:, 1]})
    asked = pd.DataFrame({"area": [1.0], "rooms": ["two"]})
    with pytest.raises(InvalidRequestError) as caught:
        client.tabular.predict(model="trees", context_X=frame, context_y=FLAGS, query_X=asked)
    [fault] = caught.value.errors
    assert (fault.code, fault.path) == ("mismatch", "/query_X/0/1")
    assert fault.message == "Column 'rooms' of the context holds numbers, not text."


def post(http: TestClient, **fields: Any) -> Any:
    body = {"model_name": "trees", "context_X": ROWS.tolist(), "query_X": ROWS[:3].tolist(), **fields}
    return http.post("/trees/tabular/predict", json=body).json()


@pytest.mark.parametrize("label", [True, None, [1], {}], ids=str)
def test_labels_that_the_wire_has_not_are_one_fault(http: TestClient, label: Any) -> None:
    [fault] = post(http, context_y=[label] * 40)["errors"]
    assert (fault["code"], fault["path"]) == ("wrong_type", "/context_y/0")
    assert fault["message"] == "Input should be a valid number or string."


def test_a_table_has_the_fault_of_its_first_wrong_cell(http: TestClient) -> None:
    rows = [[x, i % 2 == 0, []] for i, x in enumerate(ROWS[:, 0].tolist())]
    faults = post(http, context_X=rows, context_y=[0, 1] * 20, query_X=[[1.0, 1, 2]])["errors"]
    assert [fault["path"] for fault in faults] == ["/context_X/0/1"]


@pytest.mark.parametrize("label", [2**70, -(2**70), 2.0**60, 1e300])
def test_classes_beyond_what_an_answer_carries_are_refused(http: TestClient, label: Any) -> None:
    [fault] = post(http, context_y=[label, 1] * 20)["errors"]
    assert (fault["code"], fault["path"]) == ("not_allowed", "/context_y/0")


def test_the_largest_classes_come_back(http: TestClient) -> None:
    answer = post(http, context_y=[2**64 - 1, -(2**63)] * 20)
    assert answer["classes"] == [-(2**63), 2**64 - 1]
