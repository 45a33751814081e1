"""An app below a path of another is as closed as one that is served by itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from sheaf.http import create_app
from sheaf.http.keys import Access, ApiKey, hash_of
from sheaf.local import LocalModels
from tests.http.conftest import ECHO, GOOD

ADMIN = {"authorization": "Bearer the-admin"}
ORDINARY = {"x-api-key": "ordinary"}
KEYS = (ApiKey(name="ann", sha256=hash_of("ordinary")),)
CHANGES = [("GET", "/admin/models"), ("PUT", "/admin/models/other"), ("DELETE", "/admin/models/echo")]


@pytest.fixture(params=["", "/ml", "/a/b"])
def base(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def models() -> Iterator[LocalModels]:
    running = LocalModels.start([ECHO])
    yield running
    running.stop()


def client(models: LocalModels, base: str, access: Access) -> TestClient:
    app = create_app(models, access=access, changeable=models)
    outer = Starlette(routes=[Mount(base, app)]) if base else app
    return TestClient(outer, base_url=f"http://test{base}")


@pytest.mark.parametrize("keys", [(), KEYS], ids=["admin alone", "and callers"])
def test_changes_want_the_admin_s_key(models: LocalModels, base: str, keys: tuple[ApiKey, ...]) -> None:
    with client(models, base, Access(keys=keys, admin=hash_of("the-admin"))) as stranger:
        for method, path in CHANGES:
            answer = stranger.request(method, path, json={"backend": "echo"})
            assert answer.status_code == 401, (method, path, answer.text)
            answer = stranger.request(method, path, json={"backend": "echo"}, headers=ORDINARY)
            assert answer.status_code == (403 if keys else 401), (method, path, answer.text)
        seen = stranger.get("/admin/models", headers=ADMIN)
        assert [model["name"] for model in seen.json()["models"]] == ["echo"]


def test_calls_want_a_key_and_probes_do_not(models: LocalModels, base: str) -> None:
    with client(models, base, Access(keys=KEYS)) as stranger:
        for path in ("/echo/predict", "/echo/time_series/forecast", "/echo/stream", "/echo/batch"):
            assert (stranger.post(path, json=GOOD)).status_code == 401
        assert (stranger.get("/models")).status_code == 401
        assert (stranger.get("/echo/health")).status_code == 200
        answer = stranger.post("/echo/time_series/forecast", json=GOOD, headers=ORDINARY)
        assert answer.json()["mean"] == [2.0, 2.0]
