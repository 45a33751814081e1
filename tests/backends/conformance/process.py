"""The process and its memory: a model leaves both, and its neighbours, as it found them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from sheaf.backends.base import ModelBackend
from tests.backends.answers import assert_alike, fields_of
from tests.backends.conformance.first_load import changed_by_first_load
from tests.backends.conformance.held import held_by, is_tensor, still_held, young_heap
from tests.backends.conformance.model import ModelUnderTest
from tests.backends.conformance.process_state import changed, process_state, stir

#: Requests of which another model of the family must answer one in its own way.
NEIGHBOR_CALLS = 3


class ProcessChecks(ModelUnderTest):
    """What it leaves behind."""

    def test_nothing_global_changes(
        self, backend: ModelBackend, settings: dict[str, Any], requests: Sequence[Any]
    ) -> None:
        # Whatever the libraries change as they are imported, they have: `backend` is loaded.
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

    def test_nothing_global_changes_by_the_first_load_of_a_process(
        self, settings: dict[str, Any], requests: Sequence[Any]
    ) -> None:
        left = changed_by_first_load(self.backend_class, settings, requests[0])
        assert not set(left) - set(self.import_changes)

    def test_two_models_of_the_family_keep_to_themselves(
        self,
        backend: ModelBackend,
        settings: dict[str, Any],
        neighbor: dict[str, Any] | None,
        requests: Sequence[Any],
        alone: list[Any],
    ) -> None:
        assert neighbor is not None, "write a fixture `neighbor`, or say in `exempt` that there is no other"
        assert neighbor != settings, "it is the same model"
        other = self.loaded(neighbor)
        answers = [other.predict_all([request])[0] for request in requests[:NEIGHBOR_CALLS]]
        differ = [
            repr(fields_of(answer)) != repr(fields_of(own))
            for answer, own in zip(answers, alone, strict=False)
            if not isinstance(answer, Exception)
        ]
        assert any(differ), "the other model answers none of these requests in another way"
        before = fields_of(alone[0])
        assert_alike(fields_of(backend.predict(requests[0])), before, 0)
        other.unload()
        assert_alike(fields_of(backend.predict(requests[0])), before, 0)

    def test_memory_comes_back(self, settings: dict[str, Any], requests: Sequence[Any]) -> None:
        fresh = self.made(settings)
        with young_heap():
            fresh.load()
            watched = held_by(fresh, self.libraries())
            assert "torch" not in self.libraries() or any(is_tensor(each()) for each in watched)
            fresh.predict(requests[0])
            watched += held_by(fresh, self.libraries())
            assert watched, "nothing is seen that it holds: say in `exempt` why"
            fresh.unload()
            assert not still_held(watched) - set(self.kept_by_libraries), "held after unload"
        assert not fresh.keeps_contexts or len(fresh.contexts) == 0

    def test_a_model_can_be_loaded_again(
        self, settings: dict[str, Any], requests: Sequence[Any], alone: list[Any]
    ) -> None:
        fresh = self.loaded(settings)
        fresh.unload()
        with pytest.raises(RuntimeError, match=r"load\(\) has not been called"):
            fresh.predict(requests[0])
        fresh.load()
        self.assert_alike(fresh.predict(requests[0]), alone[0])
        fresh.unload()
