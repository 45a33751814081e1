"""Answers: equal to the library's own, and the same alone, in any batch, at once and streamed."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from sheaf.backends.base import ModelBackend
from sheaf_client import ProgressEvent, ResultEvent
from sheaf_client.errors import InvalidRequestError
from tests.backends.answers import assert_alike, fields_of
from tests.backends.conformance.drawing import draw_requests
from tests.backends.conformance.model import ModelUnderTest, Refused, assert_refused
from tests.backends.conformance.process_state import changed, process_state

#: Callers at a time.
CALLERS = 8
NO_PROOF = "answers that are all alike prove nothing"


class AnswerChecks(ModelUnderTest):
    """What it answers."""

    def test_answers_equal_the_librarys_own_call(
        self, backend: ModelBackend, requests: Sequence[Any], direct: Callable[[Any], Mapping[str, Any]]
    ) -> None:
        told: list[str] = []
        for request, answer in zip(requests, backend.predict_all(requests), strict=True):
            assert not isinstance(answer, Exception), answer
            expected = direct(request)
            assert expected, "no field is compared"
            self.assert_alike({name: getattr(answer, name) for name in expected}, dict(expected))
            told.append(repr(expected))
            assert answer.request_id == request.request_id
        assert len(set(told)) > 1, NO_PROOF

    def test_a_batch_gives_each_what_it_gets_alone(
        self, backend: ModelBackend, requests: Sequence[Any], alone: list[Any]
    ) -> None:
        assert len({repr(fields_of(answer)) for answer in alone}) > 1, NO_PROOF
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
        bad = [Refused(*each) for each in refused[:1]]
        with self.served(settings) as runtime, ThreadPoolExecutor(CALLERS) as callers:

            def call(request: Any) -> Any:
                try:
                    return runtime.predict_now(request, timeout=120)
                except InvalidRequestError as error:
                    return error

            answers = list(callers.map(call, [*requests, *(each.request for each in bad), *requests]))
        for each in bad:
            assert_refused(answers.pop(len(requests)), each)
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
        assert progress, "it says that it streams, and tells of no step"
        assert all(isinstance(event, ProgressEvent) for event in progress)
        assert isinstance(last, ResultEvent)
        self.assert_alike(last.response, alone[0])

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
