"""What is raised to end a program ends no server and costs nobody else their answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import httpx
import pytest

from sheaf.api.time_series import TimeSeriesRequest, TimeSeriesResponse
from sheaf.spec import ModelSpec
from tests.echoes import Echo
from tests.http.conftest import GOOD, Serve


class Panic(BaseException):
    """What Rust's panics are under pyo3."""


class Panicking(Echo):
    """Raises at 666, in its call or in its check."""

    kind: type[BaseException] = Panic

    def __init__(self, *, kind: type[BaseException], where: str, inline: bool) -> None:
        super().__init__()
        self.kind, self.where = kind, where
        self.inline = inline  # type: ignore[misc]

    def look(self, request: TimeSeriesRequest, where: str) -> None:
        if where == self.where and 666.0 in (request.history or ()):
            raise self.kind("secret")

    def check(self, request: TimeSeriesRequest) -> None:
        self.look(request, "check")

    def batch_predict(self, requests: Sequence[TimeSeriesRequest]) -> list[TimeSeriesResponse | Exception]:
        for request in requests:
            self.look(request, "call")
        return super().batch_predict(requests)


@pytest.mark.parametrize("inline", [False, True])
@pytest.mark.parametrize("where", ["check", "call"])
@pytest.mark.parametrize("kind", [SystemExit, asyncio.CancelledError, Panic])
def test_a_panic_is_an_error_of_its_own_request(
    serve: Serve, kind: type[BaseException], where: str, *, inline: bool
) -> None:
    settings = {"kind": kind, "where": where, "inline": inline}
    server = serve(ModelSpec(name="echo", backend_cls=Panicking, backend_kwargs=settings))
    bad = {**GOOD, "history": [666.0]}
    answer = httpx.post(f"{server.url}/echo/predict", json=bad)
    assert (answer.status_code, answer.json()["code"]) == (500, "backend_failed")
    assert answer.headers["content-type"] == "application/problem+json"
    assert "secret" not in answer.text
    items = httpx.post(f"{server.url}/echo/batch", json={"requests": [GOOD] * 3 + [bad] + [GOOD] * 4}).json()
    codes = [item.get("code") for item in items["responses"]]
    assert codes == [None] * 3 + ["backend_failed"] + [None] * 4
    assert httpx.post(f"{server.url}/echo/predict", json=GOOD).status_code == 200
