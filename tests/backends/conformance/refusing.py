"""Requests that cannot be served: refused with the place of the fault, and nobody else suffers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from sheaf.backends.base import ModelBackend
from sheaf_client.errors import InvalidRequestError
from tests.backends.conformance.model import ModelUnderTest, Refused, assert_refused


class RefusalChecks(ModelUnderTest):
    """What it refuses."""

    def test_bad_input_is_refused_with_its_path_and_the_next_is_served(
        self, backend: ModelBackend, requests: Sequence[Any], alone: list[Any], refused: Any
    ) -> None:
        assert refused, "name a request that it refuses, or say in `exempt` that it takes all"
        for bad in (Refused(*each) for each in refused):
            with pytest.raises(InvalidRequestError) as told:
                backend.check(bad.request)
            assert_refused(told.value, bad)
            assert all(fault.message for fault in told.value.errors)
            self.assert_alike(backend.predict(requests[0]), alone[0])

    def test_poison_in_any_place_of_a_batch_fails_alone(
        self, backend: ModelBackend, requests: Sequence[Any], alone: list[Any], poison: Any
    ) -> None:
        assert poison, "name a request that fails, or say in `exempt` that none does"
        good = list(requests[:2])
        for bad in (Refused(*each) for each in poison):
            for place in range(len(good) + 1):
                outcomes = backend.predict_all([*good[:place], bad.request, *good[place:]])
                assert_refused(outcomes.pop(place), bad)
                self.assert_all_alike(outcomes, alone[: len(good)])
