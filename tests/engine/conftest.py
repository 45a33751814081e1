"""What tests of the engine share: the two forms of steps, an observer, and a look at the threads left."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conftest import MakeRequest
from tests.engine.harness import OF_OTHERS, Watching, lanes, wait_until
from tests.engine.stepping import Form, Library, Own


@pytest.fixture
def told() -> Iterator[Watching]:
    """An observer; afterwards no thread of a model is left."""
    OF_OTHERS.update(lanes())
    yield Watching()
    wait_until(lambda: not lanes())


@pytest.fixture(params=[Own, Library], ids=["own loop", "library's loop"])
def form(request: pytest.FixtureRequest) -> Iterator[Form]:
    """Both forms are one to the scheduler; a library's call that ended early has unwound afterwards."""
    yield request.param
    wait_until(lambda: not [t for t in threading.enumerate() if t.name == "sheaf-loop"])


@pytest.fixture
def ask(make_request: MakeRequest) -> Callable[..., Any]:
    """A request of a value that takes so many steps."""
    return lambda value, steps=3, **fields: make_request(float(value), horizon=steps, **fields)
