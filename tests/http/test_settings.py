"""Limits from a server's file and from Python: what they change, and where a wrong one is said to stand."""

from __future__ import annotations

import gzip
import json
import socket
from pathlib import Path

import httpx
import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from sheaf.api.audio import AudioRequest
from sheaf.cli import _limits, _where_docs_are
from sheaf.cli import app as cli
from sheaf.embedded import EmbeddedServer
from sheaf.http.keys import Access, ApiKey, hash_of, read_access
from sheaf.http.limits import Limits, read_limits
from sheaf.http.media import check_media
from sheaf.settings import read_yaml
from sheaf.spec import ModelSpec, read_specs
from sheaf_client.errors import InvalidRequestError
from tests.echoes import Echo
from tests.http.conftest import GOOD, Serve
from tests.http.test_limits import wav

EVERY = Limits(
    max_body=1,
    max_memory=2,
    max_ratio=3,
    max_depth=4,
    max_batch=5,
    max_pixels=6,
    max_audio_seconds=7,
    max_audio_rate=8,
    max_head=9,
    max_headers=10,
    head_timeout=11,
    idle_timeout=12,
    body_timeout=13,
    min_rate=14,
    write_timeout=15,
    timeout=16,
    drain_timeout=18,
    change_timeout=19,
    keep_alive=17,
    origins=("https://app.example.org",),
    allowed_hosts=("models.example.org", "*.example.org", "10.0.0.0/8"),
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "models.yaml"


def test_every_limit_can_be_given_in_the_file(file: Path) -> None:
    assert EVERY.model_fields_set == Limits.model_fields.keys()
    file.write_text(json.dumps({"models": ["statsforecast"], "limits": EVERY.model_dump(mode="json")}))
    assert read_limits(file) == EVERY
    assert [spec.name for spec in read_specs(file)] == ["statsforecast"]
    file.write_text("[statsforecast]")
    assert read_limits(file) is None


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("limits: {max_body: 0}", "models.yaml: limits.max_body: "),
        ("limits: {max_body: many}", "models.yaml: limits.max_body: "),
        ("limits: {max_boddy: 1}", "models.yaml: limits.max_boddy: "),
        ("limits: {origins: [a, 2]}", "models.yaml: limits.origins[1]: "),
        ("limits: {timeout: .nan}", "models.yaml: limits.timeout: "),
        ("limits: 5", "models.yaml: limits: "),
        ("limit: {max_body: 5}", "models.yaml: limit: "),
        ("limits: {max_body: [}", "models.yaml: "),
        ("access: {keys: [{name: bob, sha256: abc}]}", "models.yaml: access.keys[0].sha256: "),
        ("access: {open_doc: true}", "models.yaml: access.open_doc: "),
    ],
)
def test_a_fault_is_told_with_its_place_in_the_file(file: Path, content: str, place: str) -> None:
    file.write_text(f"models: [statsforecast]\n{content}\n")
    shown = CliRunner().invoke(cli, ["serve", str(file)])
    assert shown.exit_code == 1
    assert place in shown.output
    with pytest.raises(ValueError, match=r"models\.yaml"):
        (read_access if content.startswith("access") else read_limits)(file)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_the_file_may_be_of_any_editor(file: Path, encoding: str) -> None:
    text = "# my models  \r\n\r\nmodels: [statsforecast]  \r\nlimits: {max_body: 5}\r\n"
    file.write_bytes(text.encode(encoding))
    assert read_yaml(file) == {"models": ["statsforecast"], "limits": {"max_body": 5}}


def test_a_file_that_is_no_text_is_told_by_its_name(file: Path) -> None:
    file.write_bytes(b"models: [\xfc]\n")
    with pytest.raises(ValueError, match=file.name):
        read_yaml(file)


def test_a_fault_of_a_model_is_told_with_its_place_in_the_file(file: Path) -> None:
    model = "{name: a, backend: statsforecast, batch_policy: {max_queue: 0}}"
    for content, place in (
        (f"models: [statsforecast, {model}]", "models[1].batch_policy.max_queue"),
        (f"[{model}]", "[0].batch_policy.max_queue"),
    ):
        file.write_text(content)
        with pytest.raises(ValueError, match=r"models\.yaml") as caught:
            read_specs(file)
        assert f"{place}: " in str(caught.value)


def test_the_command_serves_with_the_limits_of_the_file_and_more_origins(file: Path, tmp_path: Path) -> None:
    given = "{max_body: 5, origins: [https://a.example], allowed_hosts: [a.example]}"
    file.write_text(f"{{models: [statsforecast], limits: {given}}}")
    limits = _limits([str(file), "statsforecast"], ["https://b.example"], ["b.example"])
    assert limits == Limits(
        max_body=5,
        origins=("https://a.example", "https://b.example"),
        allowed_hosts=("a.example", "b.example"),
    )
    other = tmp_path / "other.yaml"
    other.write_text("limits: {}\nmodels: []")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        arguments = ["serve", str(file), str(other), "--port", str(taken.getsockname()[1])]
        shown = CliRunner().invoke(cli, arguments)
    assert (shown.exit_code, "two files say what is accepted" in shown.output) == (1, True)


def test_a_limit_that_cannot_be_is_refused_in_python_too() -> None:
    for wrong in ({"max_body": -1}, {"max_ratio": 0.5}, {"max_boddy": 1}):
        with pytest.raises(ValidationError):
            Limits(**wrong)  # type: ignore[arg-type]


def test_the_ratio_of_compression_is_a_limit(serve: Serve) -> None:
    content = json.dumps({**GOOD, "history": [1.0] * 5000}).encode()
    packed = gzip.compress(content)
    assert 10 * len(packed) < len(content)
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    statuses = []
    for ratio in (200.0, 10.0):
        server = serve(limits=Limits(max_ratio=ratio))
        answer = httpx.post(f"{server.url}/echo/predict", content=packed, headers=headers)
        statuses.append(answer.status_code)
    assert statuses == [200, 413]


def test_the_rate_of_a_sound_is_a_limit() -> None:
    request = AudioRequest(model_name="whisper", audio=wav(rate=16_000))
    check_media(request, Limits(max_audio_rate=16_000))
    with pytest.raises(InvalidRequestError) as caught:
        check_media(request, Limits(max_audio_rate=8_000))
    assert [fault.code for fault in caught.value.errors] == ["out_of_range"]


def test_a_server_with_keys_says_what_opens_its_docs() -> None:
    keys = (ApiKey(name="ann", sha256=hash_of("a")),)
    assert "open_docs: true" in _where_docs_are(Access(keys=keys))
    assert _where_docs_are(Access(keys=keys, open_docs=True)) == _where_docs_are(Access()) == "docs at /docs"


@pytest.mark.parametrize(
    ("arguments", "content", "told"),
    [
        (["serve", "nope"], "", "no backend is called 'nope'; there are: "),
        (["serve", "statsforcast"], "", "no backend is called 'statsforcast'; did you mean 'statsforecast'?"),
        (["serve", "FILE"], "models: [nope]", "FILE: models[0]: no backend is called 'nope'; there are: "),
        (["serve", "FILE"], "[{nam: a, backend: sklearn}]", "FILE[0].nam: unknown; did you mean 'name'?"),
        (["serve", "FILE"], "models: []", "FILE: models: name at least one"),
        (["openapi", "FILE"], "[]", "FILE: models: name at least one"),
        (["serve", "missing.yaml"], "", "missing.yaml: No such file or directory"),
        (["key", "new", "bad name!"], "", "name: expected text of the form ^"),
        (["batch", "FILE"], "[1]", "FILE: expected a mapping"),
        (["batch", "FILE"], "{spec: chronos3}", "FILE: spec: no backend is called 'chronos3'; did"),
        (["batch", "FILE"], "{spec: sklearn, sink: {path: a}}", "FILE: source: missing"),
        (["batch", "FILE"], "{spec: sklearn, snk: {}}", "FILE: snk: unknown; did you mean 'sink'?"),
    ],
)
def test_a_slip_is_told_in_a_plain_line(file: Path, arguments: list[str], content: str, told: str) -> None:
    file.write_text(content)
    shown = CliRunner().invoke(cli, [str(file) if each == "FILE" else each for each in arguments])
    assert shown.exit_code == 1
    assert told.replace("FILE", str(file)) in shown.output
    assert "pydantic" not in shown.output
    assert "validation error" not in shown.output
    assert all(line.startswith(("sheaf: ", str(file))) for line in shown.output.splitlines())


def test_who_asks_for_the_root_is_told_where_things_are(serve: Serve) -> None:
    answer = httpx.get(serve().url, headers={"accept": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert "/models" in answer.json()["detail"]
    assert "/docs" in answer.json()["detail"]


def test_who_asks_for_a_model_that_is_not_there_is_told_which_are() -> None:
    keys = (
        ApiKey(name="a", sha256=hash_of("one"), models=("nope", "echo")),
        ApiKey(name="b", sha256=hash_of("two")),
    )
    specs = [ModelSpec(name=name, backend_cls=Echo) for name in ("echo", "other")]
    with EmbeddedServer(specs, port=0, access=Access(keys=keys)) as server:
        for secret, told in (("one", "There are: echo."), ("two", "There are: echo, other.")):
            key = {"authorization": f"Bearer {secret}"}
            answer = httpx.post(f"{server.url}/nope/predict", json={}, headers=key).json()
            assert answer["detail"] == f"No model is called 'nope'. {told}"
        assert "echo" not in httpx.get(f"{server.url}/nope/ready").text  # it needs no key
