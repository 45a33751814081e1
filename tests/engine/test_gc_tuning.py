"""A process that serves leaves modules and models out of the collector's passes, and none of them leaks."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from sheaf.engine.gc_tuning import freeze_heap, refreeze_heap, unfreeze_heap, without_passes
from sheaf.local import LocalModels
from sheaf.observability import Telemetry
from sheaf.spec import ModelSpec
from tests.echoes import Echo


class Cyclic(Echo):
    """A backend that only the collector can let go of."""

    def load(self) -> None:
        self.me = self


SPEC = ModelSpec(name="cyclic", backend_cls=Cyclic)


@pytest.fixture
def settled() -> Iterator[None]:
    unfreeze_heap()
    yield
    unfreeze_heap()


@pytest.mark.usefixtures("settled")
def test_only_a_process_that_settled_is_settled_again() -> None:
    refreeze_heap()
    assert gc.get_freeze_count() == 0
    freeze_heap()
    assert gc.get_freeze_count() > 10_000
    gc.unfreeze()
    refreeze_heap()
    assert gc.get_freeze_count() > 10_000


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("change", ["unload", "update"])
def test_a_model_that_goes_is_let_go_of(change: str) -> None:
    models = LocalModels.start([SPEC], Telemetry())
    freeze_heap()
    backend = weakref.ref(models.get("cyclic").backend)
    if change == "unload":
        models.unload("cyclic")
    else:
        models.update(SPEC)
    assert backend() is None
    models.stop()


def test_work_that_keeps_all_it_makes_is_done_without_passes() -> None:
    begun: list[int] = []

    def note(phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            begun.append(len(begun))

    def work() -> list[list[int]]:
        return [[i] for i in range(5 * gc.get_threshold()[0])]

    gc.callbacks.append(note)
    try:
        assert len(without_passes(work)) > 1000
        assert not begun
        kept = work()
        assert begun
        del kept
    finally:
        gc.callbacks.remove(note)


def test_passes_go_on_after_such_work_where_they_did_before() -> None:
    with pytest.raises(ZeroDivisionError):
        without_passes(lambda: 1 // 0)
    assert gc.isenabled()
    gc.disable()
    try:
        assert without_passes(gc.isenabled) is False
        assert not gc.isenabled()
    finally:
        gc.enable()
    assert without_passes(gc.isenabled) is False
