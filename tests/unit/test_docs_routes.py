"""What the documentation routes answer: encodings, caching, headers, and the files they hold."""

from __future__ import annotations

import gzip
import hashlib
import json
import re

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from codegen import vendor
from sheaf.http.docs import SCALAR, docs_routes


@pytest.fixture
def client() -> TestClient:
    return TestClient(Starlette(routes=docs_routes()))


def _assets(client: TestClient, page: str = "/docs") -> list[str]:
    return re.findall(r'(?:src|href)="(docs/[^"]+)"', client.get(page).text)


def test_page_names_only_relative_addresses(client: TestClient):
    assert len(_assets(client)) == 4
    assert "://" not in client.get("/docs").text


@pytest.mark.parametrize("prefix", ["", "/some/prefix"])
def test_everything_the_page_loads_is_served_for_good(prefix: str):
    client = TestClient(Starlette(routes=[Mount(prefix, routes=docs_routes())]))
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
    assert len(document["paths"]) > 24
    for path, item in document["paths"].items():
        operation = item.get("post") or item["get"]
        samples = {sample["label"]: sample["source"] for sample in operation["x-codeSamples"]}
        if "post" in item:
            assert list(samples) == ["Python", "TypeScript", "curl"], path
            body = json.loads(samples["curl"].split("<<'JSON'\n")[1].removesuffix("JSON"))
            example = next(
                iter(operation["requestBody"]["content"]["application/json"]["examples"].values())
            )["value"]
            assert body == example
            compile(samples["Python"], path, "exec")


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
