"""A server for this machine answers to this machine's names: no page can have its own name point at it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pydantic import ValidationError
from starlette.testclient import TestClient
from typer.testing import CliRunner

from sheaf.cli import app as cli
from sheaf.embedded import EmbeddedServer
from sheaf.http import create_app
from sheaf.http.hosts import Hosts, as_host
from sheaf.http.keys import Access, hash_of
from sheaf.http.limits import Limits, read_limits
from sheaf.local import LocalModels
from sheaf_client import Sheaf
from sheaf_client.errors import MisdirectedError
from tests.attack.conftest import Serve
from tests.http.conftest import ECHO, GOOD, answers_of, connect, read_all, whole

OWN = [
    *("localhost", "localhost:8000", "LocalHost:80", "localhost.", "127.0.0.1", "127.0.0.1:1", "127.8.9.10"),
    *("[::1]", "[::1]:8000", "[0:0:0:0:0:0:0:1]"),
]
FOREIGN = [
    *("attacker.example", "attacker.example:8000", "localhost.attacker.example", "127.0.0.1.nip.io"),
    *("192.168.0.1", "[::2]", "0.0.0.0", "127.0.0.1attacker", "xlocalhost", "127.1"),  # noqa: S104
    *("::1", "[localhost]", "[127.0.0.1]"),
]
ROUTES = [
    ("POST", "/echo/predict"),
    ("POST", "/echo/time_series/forecast"),
    ("POST", "/echo/batch"),
    ("POST", "/echo/stream"),
    ("GET", "/models"),
    ("GET", "/docs"),
    ("GET", "/echo/health"),
    ("GET", "/metrics"),
    ("GET", "/admin/models"),
    ("OPTIONS", "/echo/predict"),
    ("GET", "/nothing"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer(ECHO, port=0, limits=Limits(origins=("*",))) as running:
        yield running


@pytest.mark.parametrize("host", OWN)
def test_it_answers_to_its_own_names(server: EmbeddedServer, host: str) -> None:
    answer = httpx.post(f"{server.url}/echo/predict", json=GOOD, headers={"host": host})
    assert (answer.status_code, answer.json()["mean"]) == (200, [2, 2])


@pytest.mark.parametrize("host", FOREIGN)
def test_it_does_not_answer_to_others(server: EmbeddedServer, host: str) -> None:
    for _ in range(2):
        answer = httpx.post(f"{server.url}/echo/predict", json=GOOD, headers={"host": host})
        assert (answer.status_code, answer.json()["code"]) == (421, "misdirected")
        assert "--allow-host" in answer.json()["detail"]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_no_route_is_open_to_a_foreign_name(server: EmbeddedServer, method: str, path: str) -> None:
    asked = {"origin": "http://attacker.example", "access-control-request-method": "POST"}
    for headers in ({}, asked):
        answer = httpx.request(
            method, server.url + path, json=GOOD, headers={"host": "attacker.example", **headers}
        )
        assert (answer.status_code, answer.json()["code"]) == (421, "misdirected")


def test_a_name_is_asked_for_before_a_key(serve: Serve) -> None:
    server = serve(access=Access(admin=hash_of("the-admin")))
    headers = {"host": "attacker.example", "authorization": "Bearer the-admin"}
    assert httpx.get(f"{server.url}/admin/models", headers=headers).status_code == 421


def test_the_client_raises_it_as_such(server: EmbeddedServer) -> None:
    with (
        httpx.Client(headers={"host": "attacker.example"}) as http,
        Sheaf(server.url, http_client=http) as client,
        pytest.raises(MisdirectedError, match=r"attacker\.example"),
    ):
        client.time_series.forecast(model="echo", history=[1.0], horizon=1, frequency="1h")


def test_an_old_client_that_names_none_is_answered(server: EmbeddedServer) -> None:
    with connect(server) as connection:
        connection.sendall(whole().replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"host: localhost\r\n", b""))
        assert [status for status, _, _ in answers_of(read_all(connection))] == [200]


@pytest.mark.parametrize(
    ("allowed", "host", "status"),
    [
        ((), "anything.example", 200),
        (("*",), "anything.example", 200),
        (("models.example.org",), "models.example.org:8000", 200),
        (("models.example.org",), "Models.Example.org.", 200),
        (("models.example.org",), "example.org", 421),
        (("models.example.org",), "x.models.example.org", 421),
        (("*.example.org",), "a.b.example.org", 200),
        (("*.example.org",), "example.org", 421),
        (("*.example.org",), "badexample.org", 421),
        (("10.0.0.0/8", "fd00::/8"), "10.1.2.3:80", 200),
        (("10.0.0.0/8", "fd00::/8"), "[fd00::1]:80", 200),
        (("10.0.0.0/8",), "11.1.2.3", 421),
    ],
)
def test_further_names_can_be_given(allowed: tuple[str, ...], host: str, status: int) -> None:
    """To an app anywhere; one that is given none does not look, for it is another's to say."""
    models = LocalModels.start(ECHO)
    with TestClient(create_app(models, limits=Limits(allowed_hosts=allowed), access=Access())) as client:
        assert client.get("/models", headers={"host": host}).status_code == status
    models.stop()


@pytest.mark.parametrize(
    ("address", "allowed", "expected"),
    [
        ("127.0.0.1", (), {"localhost": True, "models.example.org": False}),
        ("127.0.0.1", ("models.example.org",), {"localhost": True, "models.example.org": True}),
        ("127.0.0.1", ("*",), {"localhost": True, "models.example.org": True}),
        ("localhost", (), {"127.0.0.1:80": True, "models.example.org": False}),
        ("::1", (), {"[::1]:80": True, "models.example.org": False}),
        ("0.0.0.0", ("models.example.org",), {"localhost": False, "models.example.org": True}),  # noqa: S104
    ],
)
def test_an_address_says_which_names_a_server_has(
    address: str, allowed: tuple[str, ...], expected: dict[str, bool]
) -> None:
    hosts = Hosts(Limits(allowed_hosts=allowed).at(address).allowed_hosts)

    def answers(host: str) -> bool:
        try:
            hosts.check(host)
        except MisdirectedError:
            return False
        return True

    assert {host: answers(host) for host in expected} == expected


def test_a_server_that_others_reach_answers_to_any_name() -> None:
    assert Limits().at("0.0.0.0").allowed_hosts == ()  # noqa: S104
    with EmbeddedServer(ECHO, host="0.0.0.0", port=0, access=Access()) as server:  # noqa: S104
        url = server.url.replace("0.0.0.0", "127.0.0.1")  # noqa: S104
        answer = httpx.get(f"{url}/models", headers={"host": "anything.example"})
        assert answer.status_code == 200


@pytest.mark.parametrize(
    ("given", "compared"),
    [
        ("Models.Example.org.", "models.example.org"),
        (" *.example.org", "*.example.org"),
        ("[::1]", "::1"),
        ("10.0.0.1", "10.0.0.1"),
        ("127.0.0.0/8", "127.0.0.0/8"),
        ("*", "*"),
        ("my_host", "my_host"),
    ],
)
def test_a_host_is_given_in_any_spelling(given: str, compared: str) -> None:
    assert as_host(given) == compared


@pytest.mark.parametrize(
    "given", ["", "models.example.org:8000", "http://a.example", "a b", "a/b", "*example.org", "a.*.org"]
)
def test_what_is_no_host_is_told_with_its_place(tmp_path: Path, given: str) -> None:
    with pytest.raises(ValidationError, match="is no host: give a name"):
        Limits(allowed_hosts=(given,))
    done = CliRunner().invoke(cli, ["serve", "statsforecast", "--port", "0", "--allow-host", given])
    assert done.exit_code == 1
    assert "--allow-host: " in done.output
    file = tmp_path / "models.yaml"
    file.write_text(f"models: [statsforecast]\nlimits: {{allowed_hosts: ['{given}']}}\n")
    with pytest.raises(ValueError, match=r"models.yaml: limits.allowed_hosts: .*is no host"):
        read_limits(file)


def test_ports_without_end_are_not_all_remembered() -> None:
    hosts = Hosts(("localhost",))
    for port in range(5000):
        hosts.check(f"localhost:{port}")
    assert len(hosts._seen) <= 1024
