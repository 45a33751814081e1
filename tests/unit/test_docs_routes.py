"""What the documentation routes answer: encodings, caching, headers, and the files they hold."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import re

import pytest
from openapi_spec_validator import validate
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Mount
from starlette.testclient import TestClient

from codegen import vendor
from sheaf.contract.operations import all_operations
from sheaf.document import Version
from sheaf.http.docs import SCALAR, docs_routes
from sheaf.local import describe
from sheaf.openapi import generate
from sheaf.spec import ModelSpec
from sheaf_client.contracts.models import ModelInfo
from tests.contract.echo import EchoBackend

#: A model of every type, under a name of its own.
SPECS = [
    ModelSpec(name=f"my-{model_type}", backend_cls=EchoBackend.of(model_type))
    for model_type in sorted({operation.model_type for operation in all_operations()})
]


class Listed:
    """Models that are listed and can be changed, as those of a server."""

    def __init__(self, *specs: ModelSpec) -> None:
        self.models = [describe(spec, ready=True) for spec in specs]

    async def __call__(self, request: Request) -> list[ModelInfo]:
        return self.models

    def client(self, prefix: str = "") -> TestClient:
        routes = docs_routes(self)
        return TestClient(Starlette(routes=[Mount(prefix, routes=routes)] if prefix else routes))


@pytest.fixture
def client() -> TestClient:
    return Listed(*SPECS).client()


def _assets(client: TestClient, page: str = "/docs") -> list[str]:
    return re.findall(r'(?:src|href)="(docs/[^"]+)"', client.get(page).text)


def test_page_names_only_relative_addresses(client: TestClient):
    assert len(_assets(client)) == 4
    assert "://" not in client.get("/docs").text


@pytest.mark.parametrize("prefix", ["", "/some/prefix"])
def test_everything_the_page_loads_is_served_for_good(prefix: str):
    client = Listed().client(prefix)
    for address in _assets(client, f"{prefix}/docs"):
        answer = client.get(f"{prefix}/{address}")
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_policy_names_no_other_host(client: TestClient):
    policy = client.get("/docs").headers["content-security-policy"]
    directives = dict(part.split(" ", 1) for part in policy.split("; "))
    assert directives["default-src"] == "'none'"
    assert directives["script-src"] == directives["connect-src"] == "'self'"
    assert set(" ".join(directives.values()).split()) == {"'none'", "'self'", "'unsafe-inline'", "data:"}
    assert "'unsafe-inline'" not in directives["script-src"]


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ("gzip, br", "gzip"),
        ("*", "gzip"),
        ("gzip;q=0", None),
        ("identity", None),
        ("br;q=1, gzip;q=0.5", "gzip"),
    ],
)
def test_script_is_compressed_for_those_who_take_it(client: TestClient, accepted: str, encoding: str | None):
    answer = client.get("/docs/scalar.js", headers={"Accept-Encoding": accepted})
    assert answer.headers.get("content-encoding") == encoding
    assert answer.headers["vary"] == "Accept-Encoding"
    assert hashlib.sha256(answer.content).hexdigest() == vendor.SHA256


def test_script_is_unpacked_once_and_beside_the_event_loop(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
):
    unpack, loops = gzip.decompress, list[bool]()

    def watched(content: bytes) -> bytes:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            loops.append(False)
        else:
            loops.append(True)
        return unpack(content)

    monkeypatch.setattr(gzip, "decompress", watched)
    answers = [client.get("/docs/scalar.js", headers={"Accept-Encoding": "identity"}) for _ in range(3)]
    assert {hashlib.sha256(answer.content).hexdigest() for answer in answers} == {vendor.SHA256}
    assert loops == [False]


def test_client_that_has_the_file_gets_304(client: TestClient):
    tags = set[str]()
    for accepted in ("gzip", "identity"):
        headers = {"Accept-Encoding": accepted}
        tag = client.get("/docs/scalar.js", headers=headers).headers["etag"]
        again = client.get("/docs/scalar.js", headers={**headers, "If-None-Match": f'"other", W/{tag}'})
        assert (again.status_code, again.content) == (304, b"")
        tags.add(tag)
    assert len(tags) == 2
    assert client.get("/docs/scalar.js", headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/openapi-3.2.json", "/docs/page.css"])
def test_head_gives_the_headers_of_get(client: TestClient, path: str):
    head, get = client.head(path), client.get(path)
    assert head.content == b""
    assert head.headers["etag"] == get.headers["etag"]
    assert client.post(path).status_code == 405


def test_documents_say_their_versions(client: TestClient):
    versions = [client.get(path).json()["openapi"] for path in ("/openapi.json", "/openapi-3.2.json")]
    assert versions == ["3.1.1", "3.2.0"]


def test_every_operation_has_samples_that_hold_its_example(client: TestClient):
    document = client.get("/openapi.json").json()
    typed = 0
    for path, item in document["paths"].items():
        operation = item.get("post") or item["get"]
        # Operations that all models share have samples for some types alone.
        samples = {sample["label"]: sample["source"] for sample in operation.get("x-codeSamples", [])}
        assert samples or path.split("/")[2] in ("predict", "stream", "batch"), path
        if "post" in item and samples:
            assert list(samples) == ["Python", "TypeScript", "curl"], path
            body = json.loads(samples["curl"].split("<<'JSON'\n")[1].removesuffix("JSON"))
            examples = operation["requestBody"]["content"]["application/json"]["examples"]
            assert body == next(iter(examples.values()))["value"]
            compile(samples["Python"], path, "exec")
            typed += len(path.split("/")) == 4
    assert typed == len(all_operations())


def test_documents_have_the_models_that_are_there_and_no_others():
    listed = Listed(*SPECS[:2])
    client = listed.client()
    versions: list[tuple[str, Version]] = [("/openapi.json", "3.1"), ("/openapi-3.2.json", "3.2")]
    for path, version in versions:
        # The one that the command writes before anything is deployed.
        assert client.get(path).json() == generate(SPECS[:2], version=version)
    listed.models = [describe(SPECS[5], ready=False)]
    document = client.get("/openapi.json").json()
    assert document == generate(SPECS[5])
    assert {path.split("/")[1] for path in document["paths"]} == {SPECS[5].name, "models"}


def test_a_document_is_made_anew_only_where_models_changed():
    listed = Listed(*SPECS[:2])
    client = listed.client()
    first = client.get("/openapi.json").headers["etag"]
    listed.models = [model.model_copy(update={"ready": False}) for model in listed.models]
    assert client.get("/openapi.json", headers={"If-None-Match": first}).status_code == 304
    listed.models = listed.models[:1]
    again = client.get("/openapi.json", headers={"If-None-Match": first})
    assert again.status_code == 200
    assert again.headers["etag"] != first


def test_a_server_of_no_models_documents_what_it_answers_besides():
    document = Listed().client().get("/openapi.json").json()
    validate(document)
    assert list(document["paths"]) == ["/models"]
    assert document["info"]["description"].startswith("No model is deployed here.")


def test_the_introduction_names_the_models():
    described = Listed(*SPECS).client().get("/openapi.json").json()["info"]["description"]
    assert all(f"\n- `{spec.name}`: " in described for spec in SPECS)


@pytest.mark.parametrize("prefix", ["", "/some/prefix"])
@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", 307),
        ("text/html", 307),
        ("application/json", 404),
        ("*/*", 404),
        ("text/html;q=0.5, application/json", 404),
        ("text/html;q=0", 404),
    ],
)
def test_a_browser_is_sent_to_the_page(prefix: str, accept: str, status: int):
    client = Listed().client(prefix)
    for method in ("GET", "HEAD"):
        headers = {"accept": accept, "host": "evil.example"}
        answer = client.request(method, f"{prefix}/", headers=headers, follow_redirects=False)
        assert answer.status_code == status
        assert answer.headers.get("location") == (f"{prefix}/docs" if status == 307 else None)


def test_vendored_script_is_the_one_that_was_reviewed():
    vendor.check()
    assert vendor.TARGET.name == SCALAR
    record = (vendor.STATIC / "VENDORED.md").read_text(encoding="utf-8")
    stored = vendor.TARGET.read_bytes()
    for fact in (
        vendor.PACKAGE,
        vendor.VERSION,
        vendor.SHA256,
        hashlib.sha256(stored).hexdigest(),
        SCALAR,
        "MIT",
    ):
        assert fact in record


def test_changed_script_is_refused():
    script = gzip.decompress(vendor.TARGET.read_bytes())
    with pytest.raises(vendor.VendorError, match="sha256 is"):
        vendor.verify(script + b"\n")
