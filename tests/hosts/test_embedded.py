"""The `sheaf` command as a user runs it: serves a YAML of specs, says what is wrong, ends on a signal."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from sheaf.cli import app as cli
from sheaf.embedded import EmbeddedServer
from sheaf.http.keys import Access, hash_of
from sheaf.registry import backend_names, find_backend
from sheaf.spec import ModelSpec, as_specs, read_specs
from sheaf_client import ConnectionFailedError, Sheaf
from tests.echoes import Broken, Echo

PORT = 18275
COMMAND = [sys.executable, "-m", "sheaf"]


@contextmanager
def serving(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*COMMAND, "serve", *arguments, "--port", str(PORT)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


def wait_ready(model: str) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            if httpx.get(f"http://127.0.0.1:{PORT}/{model}/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    pytest.fail("the server never became ready")


def test_serve_reads_specs_from_yaml_and_ends_on_a_signal(tmp_path: Path) -> None:
    file = tmp_path / "models.yaml"
    file.write_text(
        "models:\n"
        "  - name: naive\n    backend: statsforecast\n    backend_kwargs: {model: SeasonalNaive}\n"
        "    batch_policy: {max_batch_size: 4}\n"
        "  - statsforecast\n"
    )
    with serving(str(file)) as process:
        wait_ready("statsforecast")
        with Sheaf(f"http://127.0.0.1:{PORT}") as client:
            season = [1.0, 5.0, 2.0, 7.0, 3.0, 9.0, 4.0] * 3
            answer = client.time_series.forecast(model="naive", history=season, horizon=7, frequency="1d")
            assert answer.mean == season[:7]
            assert [m.name for m in client.models.list()] == ["naive", "statsforecast"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) in (0, -signal.SIGTERM)
        assert process.stdout is not None
        assert "Serving naive, statsforecast" in process.stdout.read()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("models: 3", "expected a list of models"),
        ("- {name: a, backend: nonesuch}", "no backend is called 'nonesuch'"),
        ("- {name: ../x y, backend: statsforecast}", "name"),
        ("- {name: docs, backend: statsforecast}", "name of a route"),
        ("- {name: a, backend: statsforecast, resources: {replicas: 0}}", "replicas"),
        ("- {name: a, backend: statsforecast, bogus: 1}", "bogus"),
        ("- {name: a, backend: statsforecast, model_type: tabular}", "serves time_series, not tabular"),
        ("- {name: a, backend: statsforecast, backend_kwargs: {modell: x}}", "do not fit"),
        ("- {name: a, backend: chronos2, backend_kwargs: {model_id: /nowhere/at/all}}", "/nowhere/at/all"),
        ("- statsforecast\n- statsforecast", "two models are called 'statsforecast'"),
    ],
)
def test_a_deployment_that_cannot_be_says_why_and_exits(tmp_path: Path, content: str, reason: str) -> None:
    file = tmp_path / "models.yaml"
    file.write_text(content)
    command = [*COMMAND, "serve", str(file), "--port", str(PORT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 1
    assert reason in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_lists_what_can_be_served() -> None:
    done = subprocess.run([*COMMAND, "backends"], capture_output=True, text=True, check=True)
    for name in ("chronos2", "statsforecast"):
        assert name in done.stdout


@pytest.mark.parametrize("name", backend_names())
def test_every_backend_can_be_deployed_by_its_name(name: str) -> None:
    if name == "flux-img2img":  # its default weights are not free for all uses
        with pytest.raises(ValueError, match=r"FLUX\.1-dev are under .*say `accept_license: true`"):
            as_specs(name)
    spec = ModelSpec(name=name, backend=name, accept_license=name == "flux-img2img")
    assert spec.model_type == find_backend(name).model_type
    assert isinstance(spec.make_backend(), find_backend(name))


def test_read_specs_takes_a_bare_list(tmp_path: Path) -> None:
    file = tmp_path / "models.yml"
    file.write_text("- statsforecast\n- {name: b, backend: statsforecast}\n")
    assert [spec.name for spec in read_specs(file)] == ["statsforecast", "b"]


def test_a_model_that_fails_to_load_lets_go_of_those_before_it() -> None:
    specs = [ModelSpec(name="echo", backend_cls=Echo), ModelSpec(name="broken", backend_cls=Broken)]
    with pytest.raises(FileNotFoundError):
        Sheaf.local(specs)
    with pytest.raises(FileNotFoundError), EmbeddedServer(specs, port=0):
        pytest.fail("the server must not come up")


def test_a_name_that_is_near_is_named_in_python_too() -> None:
    with pytest.raises(
        ValueError, match=r"^no backend is called 'statsforcast'; did you mean 'statsforecast'\?"
    ):
        Sheaf.local(["statsforcast"])


@pytest.mark.parametrize("host", [EmbeddedServer, Sheaf.local])
def test_a_host_needs_a_model(host: Callable[[list[ModelSpec]], object]) -> None:
    with pytest.raises(ValueError, match=r"^models: name at least one$"):
        host([])


def test_an_admin_may_begin_with_none() -> None:
    access = Access(admin=hash_of("secret"))
    with EmbeddedServer([], port=0, access=access) as server:
        url, key = f"{server.url}/admin/models/naive", {"authorization": "Bearer secret"}
        assert httpx.put(url, json={"backend": "statsforecast"}, headers=key, timeout=60).status_code == 201
        assert [model["name"] for model in httpx.get(f"{server.url}/models").json()["models"]] == ["naive"]


def test_the_command_says_where_it_serves_once_the_models_are_loaded() -> None:
    command = [*COMMAND, "serve", "statsforecast", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "Loading statsforecast …\n"
            said = re.fullmatch(
                r"Serving statsforecast on (http://[\d.:]+) - .*\n", process.stdout.readline()
            )
            assert said is not None
            assert httpx.get(f"{said[1]}/statsforecast/ready").status_code == 200
        finally:
            process.kill()


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        shown = CliRunner().invoke(cli, ["serve", "statsforecast", "--port", port])
    assert shown.exit_code == 1
    assert (
        f"sheaf: port {port} of 127.0.0.1 is in use by another program; take another by --port"
        in shown.output
    )
    assert "Serving" not in shown.output


def test_a_server_leaves_the_handlers_of_signals_as_they_were() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        EmbeddedServer(ModelSpec(name="echo", backend_cls=Echo), port=taken.getsockname()[1]).run()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_server_that_is_gone_is_a_typed_error() -> None:
    with EmbeddedServer(ModelSpec(name="echo", backend_cls=Echo), port=0) as server:
        url = server.url
    with Sheaf(url, max_retries=1, timeout=5) as client, pytest.raises(ConnectionFailedError) as caught:
        client.time_series.forecast(model="echo", history=[1.0], horizon=1, frequency="1h")
    assert caught.value.unsent
