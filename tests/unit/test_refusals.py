"""A refusal stands in the place of its own request: before a batch is computed, and while it is."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import pytest

from sheaf.api.tabular import TabularRequest
from sheaf.api.time_series import TimeSeriesRequest, TimeSeriesResponse
from sheaf.backends._shared.refusals import answer_each, check_finite, compute_together, refuse
from sheaf_client.errors import InvalidRequestError
from tests.conftest import MakeRequest
from tests.echoes import Echo


class Choosy(Echo):
    """Refuses negative values, and puts those of one horizon together."""

    def check(self, request: TimeSeriesRequest) -> None:
        if (request.history or [0.0])[-1] < 0:  # type: ignore[operator]
            raise refuse("/history", "No negative values.")

    def batch_key(self, request: TimeSeriesRequest) -> Hashable:
        return request.horizon


def fault_of(outcome: object) -> tuple[str, str]:
    assert isinstance(outcome, InvalidRequestError)
    return outcome.errors[0].code, outcome.errors[0].path


def test_without_an_engine_requests_are_checked_and_share_their_calls(make_request: MakeRequest) -> None:
    backend = Choosy()
    asked = [make_request(value, horizon=1 + value % 2) for value in (4, -1, 7, 8, -3, 2)]
    answers = backend.predict_all(asked)
    assert [fault_of(answers[i]) for i in (1, 4)] == [("unsupported", "/history")] * 2
    given = [answer.mean[0] for answer in answers if isinstance(answer, TimeSeriesResponse)]
    assert given == [4, 7, 8, 2]
    assert backend.batches == [[asked[0], asked[3], asked[5]], [asked[2]]]
    assert backend.predict(asked[0]).mean == [4.0]
    with pytest.raises(InvalidRequestError):
        backend.predict(asked[1])
    assert backend.predict_all([]) == []


def test_a_request_of_another_contract_is_refused_in_its_place(make_request: MakeRequest) -> None:
    other = TabularRequest(
        model_name="m", context_X=[[1.0]], context_y=[1], query_X=[[1.0]], task="classification"
    )
    refused, answered = Choosy().predict_all([other, make_request(2.0)])  # type: ignore[list-item]
    assert fault_of(refused) == ("mismatch", "/model_type")
    assert isinstance(answered, TimeSeriesResponse)


def test_what_can_be_prepared_is_computed_together() -> None:
    computed: list[list[int]] = []

    def prepare(item: int) -> int:
        if item < 0:
            raise refuse(f"/{item}", "negative")
        return item * 10

    def compute(ready: Sequence[int]) -> list[str]:
        computed.append(list(ready))
        return [str(each) for each in ready]

    outcomes = compute_together([1, -1, 2, -2], prepare, compute)
    assert (outcomes[0], outcomes[2]) == ("10", "20")
    assert [fault_of(outcomes[i])[1] for i in (1, 3)] == ["/-1", "/-2"]
    assert all(isinstance(each, InvalidRequestError) for each in compute_together([-1, -2], prepare, compute))
    assert compute_together([], prepare, compute) == []
    assert computed == [[10, 20]]  # and never for nothing
    with pytest.raises(ZeroDivisionError):
        compute_together([1], lambda item: item // 0, compute)


def test_an_answer_that_is_not_finite_fails_alone() -> None:
    def build(name: str, values: list[float]) -> str:
        check_finite(f"/{name}", "Nothing finite.", np.array(values), None)
        return name

    outcomes = answer_each(build, ["a", "b", "c"], [[1.0], [float("nan")], [2.0]])
    assert (outcomes[0], outcomes[2]) == ("a", "c")
    assert fault_of(outcomes[1]) == ("unsupported", "/b")
