"""Small requests cannot make a server hold large answers: they are weighed before there are any."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from tests.attack.process import MIB, MOST, Attack, Served, as_text, served

PATH, BATCH = "/statsforecast/predict", "/statsforecast/batch"
SMALL: dict[str, Any] = {"history": [1, 2, 3, 4, 5, 6, 7, 8], "horizon": 2, "frequency": "1d"}
LEVELS = [(i + 1) / 200 for i in range(199)]
#: The most that one answer may hold: about 19 MB of JSON, asked for by 1 kB.
LARGE = {**SMALL, "horizon": 16384, "output_mode": "quantiles", "quantile_levels": LEVELS[:61]}
TOO_LARGE = {**LARGE, "quantile_levels": LEVELS}


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served("tests.attack.models:FORECASTS") as running:
        yield running


def still_serves(server: Served) -> bool:
    assert server.peak < MOST
    return server.alive and server.post(PATH, as_text(SMALL).encode()).status_code == 200


def batch(body: dict[str, Any], count: int) -> bytes:
    return as_text({"requests": [body] * count}).encode()


def test_more_levels_than_an_answer_holds_are_refused(server: Served) -> None:
    answer = server.post(PATH, as_text(TOO_LARGE).encode())
    assert answer.status_code == 422
    fault = answer.json()["errors"][0]
    assert (fault["code"], fault["path"]) == ("out_of_range", "/quantile_levels")
    assert "At most 61 levels" in fault["message"]


@pytest.mark.parametrize("packed", [False, True])
def test_a_batch_of_large_answers_comes_whole(server: Served, *, packed: bool) -> None:
    accept = {"accept": "application/msgpack"} if packed else {}
    answer = server.post(BATCH, batch(LARGE, 3), **accept)
    assert answer.status_code == 200
    found = (msgspec.msgpack.decode if packed else msgspec.json.decode)(answer.content)["responses"]
    assert [len(one["quantiles"]["0.005"]) for one in found] == [16384] * 3
    assert still_serves(server)


def test_the_answers_of_a_batch_are_weighed_together(server: Served) -> None:
    for count in (16, 200, 1000):
        answer = server.post(BATCH, batch(LARGE, count))
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["code"] == "out_of_range"
    assert still_serves(server)


def test_a_hundred_at_once_are_answered_or_refused(server: Served) -> None:
    statuses = server.flood([Attack(PATH, as_text(LARGE).encode())] * 100)
    assert set(statuses) == {200, 503}
    assert still_serves(server)


def test_who_reads_no_answer_holds_no_more_than_a_caller_s_share(server: Served) -> None:
    content = as_text(LARGE).encode()
    lines = (f"POST {PATH} HTTP/1.1", "host: localhost", "content-type: application/json")
    request = "\r\n".join((*lines, f"content-length: {len(content)}", "", "")).encode() + content
    host, port = server.url.removeprefix("http://").split(":")
    silent = [socket.create_connection((host, int(port))) for _ in range(100)]
    try:
        for connection in silent:
            connection.sendall(request)
        for connection in silent:
            connection.settimeout(60)
            assert connection.recv(12) in (b"HTTP/1.1 200", b"HTTP/1.1 503")
        assert still_serves(server)
    finally:
        for connection in silent:
            connection.close()
    assert still_serves(server)


def test_a_server_with_little_memory_lives() -> None:
    with served("tests.attack.models:FORECASTS", limit=MOST + 512 * MIB) as confined:
        attacks = [Attack(PATH, as_text(LARGE).encode())] * 20 + [Attack(BATCH, batch(LARGE, 5))] * 5
        statuses = confined.flood(attacks)
        assert set(statuses) <= {200, 503}
        assert still_serves(confined)
