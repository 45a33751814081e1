"""What the tests of calls and loads that hang share: an observer, and a look at the threads that are left."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.engine.harness import OF_OTHERS, Watching, lanes, wait_until


@pytest.fixture
def told() -> Iterator[Watching]:
    """An observer; afterwards no thread of a model is left."""
    OF_OTHERS.update(lanes())
    yield Watching()
    wait_until(lambda: not lanes())
