"""Models loaded, updated and unloaded over HTTP, by the admin alone, with calls going on."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from sheaf import registry
from sheaf.backends.base import ModelBackend
from sheaf.http import create_app
from sheaf.http.keys import Access, ApiKey, hash_of
from sheaf.local import LocalModels
from sheaf.lora import LoRAAdapter, LoRAConfig
from sheaf.spec import ModelSpec
from tests.contract.echo import EchoBackend
from tests.echoes import Broken, Echo
from tests.http.conftest import ECHO, GOOD, Serve

ADMIN = {"authorization": "Bearer the-admin"}
ORDINARY = {"x-api-key": "ordinary"}
KEYS = (ApiKey(name="ann", sha256=hash_of("ordinary"), weight=3.0),)
ACCESS = Access(keys=KEYS, admin=hash_of("the-admin"))
ROUTES = [
    ("GET", "/admin/models"),
    ("PUT", "/admin/models/echo"),
    ("DELETE", "/admin/models/echo"),
    ("GET", "/admin"),
]


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backends that the admin may name, for as long as a test takes."""
    monkeypatch.setitem(registry._registered, "test-echo", Echo)
    monkeypatch.setitem(registry._registered, "test-broken", Broken)
    monkeypatch.setitem(registry._registered, "test-adapted", Adapted)
    monkeypatch.setitem(registry._registered, "test-exiting", Exiting)
    monkeypatch.setitem(registry._registered, "test-trusting", Trusting)
    monkeypatch.setitem(registry._registered, "test-unmade", Unmade)


class Trusting(Echo):
    """A model whose files may run code, where its settings say so."""

    trusted_settings = frozenset({"trust_pickle"})

    def __init__(self, *, trust_pickle: bool = False) -> None:
        super().__init__()


class Exiting(Echo):
    """A model whose library ends the program while it loads."""

    def load(self) -> None:
        raise SystemExit("no checkpoint at /models/none")


class Unmade(Echo):
    """The same, before it loads."""

    def __init__(self) -> None:
        raise SystemExit("no checkpoint at /models/none")


class Adapted(EchoBackend.of("diffusion")):  # type: ignore[misc]
    """A model of images that has the adapters of its spec."""

    resolve_adapters = ModelBackend.resolve_adapters


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_without_an_admin_s_key_there_are_no_such_routes(serve: Serve, method: str, path: str) -> None:
    server = serve()
    for headers in ({}, ADMIN):
        answer = httpx.request(method, server.url + path, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    closed = serve(access=Access(keys=KEYS))
    assert httpx.request(method, closed.url + path).status_code == 401
    assert httpx.request(method, closed.url + path, headers=ORDINARY).status_code == 404


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_ordinary_keys_may_not(serve: Serve, method: str, path: str) -> None:
    server = serve(access=ACCESS)
    assert httpx.request(method, server.url + path).status_code == 401
    assert httpx.request(method, server.url + path, headers={"x-api-key": "x"}).status_code == 401
    answer = httpx.request(method, server.url + path, headers=ORDINARY)
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    keyless = serve(access=Access(admin=hash_of("the-admin")))
    assert httpx.request(method, keyless.url + path).status_code == 401
    assert httpx.post(f"{keyless.url}/echo/predict", json=GOOD).status_code == 200


def test_the_admin_s_key_opens_nothing_else(serve: Serve) -> None:
    server = serve(access=ACCESS)
    answer = httpx.post(f"{server.url}/echo/predict", json=GOOD, headers=ADMIN)
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


def test_a_host_that_cannot_change_its_models_has_no_such_routes() -> None:
    models = LocalModels.start(ECHO)

    async def ask() -> int:
        transport = httpx.ASGITransport(create_app(models, access=ACCESS))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as http:
            return (await http.get("/admin/models", headers=ORDINARY)).status_code

    assert asyncio.run(ask()) == 404
    models.stop()


def documented(url: str) -> set[str]:
    """The models that the served document has paths of."""
    paths = httpx.get(f"{url}/openapi.json", headers=ORDINARY).json()["paths"]
    return {path.split("/")[1] for path in paths} - {"models"}


def test_a_model_is_loaded_updated_and_unloaded(serve: Serve) -> None:
    server = serve(access=ACCESS)
    with httpx.Client(base_url=server.url, headers=ADMIN, timeout=30) as admin:
        spec: dict[str, Any] = {"backend": "test-echo", "backend_kwargs": {"add": 1.0}}
        made = admin.put("/admin/models/new", json=spec)
        assert made.status_code == 201
        assert made.json()["operations"] == ["/new/time_series/forecast"]
        ask = {"json": GOOD, "headers": ORDINARY}
        assert httpx.post(f"{server.url}/new/predict", **ask).json()["mean"] == [3, 3]
        changed = admin.put("/admin/models/new", json={**spec, "name": "new", "backend_kwargs": {"add": 2}})
        assert changed.status_code == 200
        assert httpx.post(f"{server.url}/new/predict", **ask).json()["mean"] == [4, 4]
        assert documented(server.url) == {"echo", "new"}
        listed = admin.get("/admin/models").json()["models"]
        assert [(entry["name"], entry["ready"]) for entry in listed] == [("echo", True), ("new", True)]
        assert listed[1]["backend_kwargs"] == {"add": 2}
        assert listed[1]["batch_policy"]["tenant_weights"] == {"ann": 3.0}
        assert admin.delete("/admin/models/new").status_code == 204
        assert documented(server.url) == {"echo"}
        assert httpx.post(f"{server.url}/new/predict", **ask).json()["code"] == "model_not_found"
        assert admin.delete("/admin/models/new").json()["code"] == "model_not_found"


@pytest.mark.parametrize(
    ("spec", "status", "fault"),
    [
        ({"backend": "tests.echoes.Echo"}, 422, ("not_allowed", "/backend")),
        ({"backend": "os"}, 422, ("not_allowed", "/backend")),
        ({"backend_cls": "tests.echoes.Echo"}, 422, ("not_allowed", "/backend_cls")),
        ({"backend": "test-echo", "backend_cls": None}, 422, ("not_allowed", "/backend_cls")),
        ({}, 422, ("missing", "/backend")),
        ([], 422, ("wrong_type", "")),
        ({"backend": "test-echo", "name": "other"}, 422, ("mismatch", "/name")),
        ({"backend": "test-echo", "bakend_kwargs": {}}, 422, ("unknown_field", "/bakend_kwargs")),
        (
            {"backend": "test-echo", "batch_policy": {"max_queue": 0}},
            422,
            ("out_of_range", "/batch_policy/max_queue"),
        ),
        ({"backend": "test-echo", "backend_kwargs": {"no": 1}}, 422, ("not_allowed", "/backend_kwargs")),
        (
            {"backend": "test-trusting", "backend_kwargs": {"trust_pickle": True}},
            422,
            ("not_allowed", "/backend_kwargs/trust_pickle"),
        ),
        (
            {"backend": "test-trusting", "backend_kwargs": {"trust_pickle": "yes"}},
            422,
            ("not_allowed", "/backend_kwargs/trust_pickle"),
        ),
        ({"backend": "test-broken"}, 500, None),
        ({"backend": "test-exiting"}, 500, None),
        ({"backend": "test-unmade"}, 422, ("not_allowed", "/backend_kwargs")),
    ],
    ids=str,
)
def test_a_bad_spec_changes_nothing_and_is_told(serve: Serve, spec: Any, status: int, fault: Any) -> None:
    server = serve(access=ACCESS)
    for name in ("echo", "fresh"):
        answer = httpx.put(f"{server.url}/admin/models/{name}", json=spec, headers=ADMIN, timeout=30)
        assert answer.status_code == status
        problem = answer.json()
        if fault is not None:
            assert (problem["errors"][0]["code"], problem["errors"][0]["path"]) == fault
        else:
            assert "no checkpoint at /models/none" in problem["detail"]
    ask = {"json": GOOD, "headers": ORDINARY}
    assert httpx.post(f"{server.url}/echo/predict", **ask).json()["mean"] == [2, 2]
    assert httpx.post(f"{server.url}/fresh/predict", **ask).status_code == 404


def test_what_the_server_s_own_settings_may_say_is_not_the_admin_s(serve: Serve) -> None:
    server = serve(
        ModelSpec(name="echo", backend="test-trusting", backend_kwargs={"trust_pickle": True}), access=ACCESS
    )
    url = f"{server.url}/admin/models/other"
    for settings, status in (({"trust_pickle": False}, 201), ({}, 200), ({"trust_pickle": True}, 422)):
        spec = {"backend": "test-trusting", "backend_kwargs": settings}
        answer = httpx.put(url, json=spec, headers=ADMIN, timeout=30)
        assert answer.status_code == status
    assert "only in the server's own settings" in answer.json()["errors"][0]["message"]


ANYWHERE = {"adapters": {"a": {"source": "/etc/a.safetensors"}, "b": {"source": "hf:org/b"}}}
ESCAPING = {"adapters": {"a": {"source": "../a.safetensors"}}, "root": "/srv/adapters"}
PICKLED = {"adapters": {"a": {"source": "a.pt"}}, "root": "/srv/adapters"}


@pytest.mark.parametrize(
    ("lora", "path", "words"),
    [
        (ANYWHERE, "/lora/root", "a: a local path needs `root`"),
        ({**ANYWHERE, "root": None}, "/lora/root", "a: a local path needs `root`"),
        ({**ANYWHERE, "root": "/srv/adapters"}, "/lora", "outside of /srv/adapters"),
        (ESCAPING, "/lora", "outside of /srv/adapters"),
        (PICKLED, "/lora/adapters/a/source", "pickles, which can run code"),
    ],
)
def test_adapters_that_the_admin_names_stay_in_a_folder(
    serve: Serve, lora: Any, path: str, words: str
) -> None:
    server = serve(access=ACCESS)
    with httpx.Client(base_url=server.url, headers=ADMIN, timeout=30) as admin:
        answer = admin.put("/admin/models/new", json={"backend": "test-adapted", "lora": lora})
        assert answer.status_code == 422
        (fault,) = answer.json()["errors"]
        assert fault["path"] == path
        assert words in fault["message"]
        inside = {"adapters": {"a": {"source": "a.safetensors"}}, "root": "/srv/adapters"}
        made = admin.put("/admin/models/new", json={"backend": "test-adapted", "lora": inside})
        assert made.status_code == 201


def test_a_request_names_adapters_and_never_files(serve: Serve) -> None:
    """The files of a deployer's spec may lie anywhere; a request can say names of it and nothing else."""
    adapters = {"a": LoRAAdapter(source="/etc/a.safetensors")}
    server = serve(ModelSpec(name="m", backend_cls=Adapted, lora=LoRAConfig(adapters=adapters)))
    for named in ("/etc/a.safetensors", "../a", "hf:org/repo", "b"):
        body = {"prompt": "a cat", "adapters": [named], "seed": 1}
        answer = httpx.post(f"{server.url}/m/predict", json=body)
        assert answer.status_code == 422
        (fault,) = answer.json()["errors"]
        assert fault["path"] == "/adapters/0"
    body = {"prompt": "a cat", "adapters": ["a"], "seed": 1}
    assert httpx.post(f"{server.url}/m/predict", json=body).status_code == 200


def test_the_admin_may_use_a_backend_s_alias(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._aliases, "test-repeat", "test-echo")
    server = serve(access=ACCESS)
    body = {"backend": "test-repeat"}
    answer = httpx.put(f"{server.url}/admin/models/new", json=body, headers=ADMIN, timeout=30)
    assert (answer.status_code, answer.json()["backend"]) == (201, "test-repeat")


@pytest.mark.parametrize("name", ["docs", "admin", "models", "-x", "a b"])
def test_a_name_that_no_model_may_have_is_refused(serve: Serve, name: str) -> None:
    server = serve(access=ACCESS)
    url = f"{server.url}/admin/models/{name}"
    assert httpx.put(url, json={"backend": "test-echo"}, headers=ADMIN).status_code == 422


def test_no_call_is_lost_while_the_admin_updates(serve: Serve) -> None:
    server = serve(access=Access(admin=hash_of("the-admin")))

    async def run() -> tuple[list[int], list[int]]:
        limits = httpx.Limits(max_connections=40)
        async with httpx.AsyncClient(base_url=server.url, timeout=60, limits=limits) as http:
            done = asyncio.Event()
            statuses: list[int] = []

            async def call(path: str) -> None:
                while not done.is_set():
                    answer = await http.post(path, json=GOOD)
                    statuses.append(answer.status_code)
                    if path == "/echo/stream":
                        assert "event: result" in answer.text

            callers = [
                asyncio.create_task(call(path)) for path in ["/echo/predict"] * 8 + ["/echo/stream"] * 2
            ]
            updates = [
                (
                    await http.put(
                        "/admin/models/echo",
                        json={"backend": "test-echo", "backend_kwargs": {"add": add, "seconds": 0.002}},
                        headers=ADMIN,
                    )
                ).status_code
                for add in range(12)
            ]
            done.set()
            await asyncio.gather(*callers)
            return statuses, updates

    statuses, updates = asyncio.run(run())
    assert set(updates) == {200}
    assert set(statuses) == {200}
    assert len(statuses) > 20
