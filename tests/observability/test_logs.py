"""Logs: one JSON object a line, in true UTC, with the request it belongs to and nothing of its content."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from sheaf.observability.context import CURRENT, CurrentRequest
from sheaf.observability.logs import JSONFormatter, configure_logging
from tests.observability.conftest import GOOD
from tests.observability.readings import eventually

ROOT = Path(__file__).parents[2]
Line = dict[str, Any]


@contextmanager
def serving(tmp_path: Path, **env: str) -> Iterator[tuple[httpx.Client, list[str]]]:
    """A server process; after it ended, the list holds every line of its standard error."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = tmp_path / "stderr"
    lines: list[str] = []
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SHEAF_")}
    with told.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.observability.serve", str(port)],
            env={**clean, **env},
            stderr=file,
            cwd=ROOT,
        )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
                eventually(lambda: is_ready(client), 30)
                yield client, lines
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
    lines += told.read_text().splitlines()


def is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/fragile/ready").is_success
    except httpx.TransportError:
        return False


def one(lines: list[str], **facts: Any) -> Line:
    """The one line that has these members."""
    found = [line for line in map(json.loads, lines) if facts.items() <= line.items()]
    assert len(found) == 1, found
    return found[0]


TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What a server far from Greenwich logs of four requests."""
    env = {"SHEAF_LOG_JSON": "1", "TZ": "Asia/Kathmandu"}
    with serving(tmp_path_factory.mktemp("json"), **env) as (client, lines):
        sent = {"x-request-id": "good-1", "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
        client.post("/echo/predict", json=GOOD, headers=sent)
        client.post(
            "/echo/predict?key=hunter2", json={**GOOD, "horizon": 0}, headers={"x-request-id": "bad-1"}
        )
        failing = {
            **GOOD,
            "history": [123456.75, 666.0],
            "request_id": "00000000-0000-4000-8000-000000000001",
        }
        client.post("/fragile/predict", json=failing, headers={"authorization": "Bearer hunter2"})
        client.post("/nobody/predict", json=GOOD, headers={"x-request-id": "lost-1"})
    return lines


def test_every_line_of_the_process_is_one_json_object(lines: list[str]) -> None:
    assert len(lines) >= 6
    for line in map(json.loads, lines):
        assert {"time", "level", "logger", "message"} <= line.keys()


def test_times_are_utc_whatever_the_zone_of_the_machine(lines: list[str]) -> None:
    for line in map(json.loads, lines):
        assert line["time"].endswith("Z")
        age = datetime.now(UTC) - datetime.fromisoformat(line["time"])
        assert timedelta(0) <= age < timedelta(minutes=10), "not the true time in UTC"


def test_each_request_has_its_access_line(lines: list[str]) -> None:
    line = one(lines, logger="sheaf.access", request_id="good-1")
    assert line["level"] == "info"
    assert (line["model"], line["route"], line["status"]) == ("echo", "predict", 200)
    assert 0 < line["seconds"] < 60
    assert line["trace_id"] == TRACE
    assert one(lines, logger="sheaf.access", request_id="bad-1")["status"] == 422
    lost = one(lines, logger="sheaf.access", request_id="lost-1")
    assert (lost["status"], "model" in lost) == (404, False)


def test_an_exception_is_one_member_of_its_line(lines: list[str]) -> None:
    line = one(lines, logger="sheaf.engine", level="error")
    assert line["request_id"] == "00000000-0000-4000-8000-000000000001"
    assert line["model"] == "fragile"
    assert "Traceback" in line["exception"]
    assert "RuntimeError: secret" in line["exception"]


def test_no_line_holds_what_a_request_brought(lines: list[str]) -> None:
    text = "\n".join(lines)
    assert "hunter2" not in text
    assert "123456.75" not in text
    assert "history" not in text


@pytest.mark.parametrize("value", ["0", "false", "", "off"])
def test_json_is_off_where_the_variable_says_no(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHEAF_LOG_JSON", value)
    monkeypatch.setenv("SHEAF_LOG", "info")
    with own_loggers():
        configure_logging()
        (handler,) = logging.getLogger("sheaf").handlers
        assert not isinstance(handler.formatter, JSONFormatter)


def test_without_variables_the_loggers_of_a_program_stay_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHEAF_LOG_JSON", raising=False)
    monkeypatch.delenv("SHEAF_LOG", raising=False)
    with own_loggers():
        configure_logging()
        assert logging.getLogger("sheaf").handlers == []
        assert logging.getLogger("sheaf").propagate


@pytest.mark.parametrize(("given", "level"), [("debug", logging.DEBUG), ("INFO", logging.INFO)])
def test_the_level_is_what_the_variable_names(
    given: str, level: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHEAF_LOG", given)
    with own_loggers():
        configure_logging()
        configure_logging()
        logger = logging.getLogger("sheaf")
        assert logger.level == level
        assert len(logger.handlers) == 1


@contextmanager
def own_loggers() -> Iterator[None]:
    """The loggers as they are in a new process, and back afterwards."""
    loggers = [logging.getLogger(name) for name in ("sheaf", "uvicorn")]
    kept = [(logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [], True
    try:
        yield
    finally:
        for logger, (handlers, level, propagate) in zip(loggers, kept, strict=True):
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)


def formatted(message: str, *, error: BaseException | None = None) -> Line:
    info = (type(error), error, error.__traceback__) if error is not None else None
    record = logging.LogRecord("sheaf.test", logging.WARNING, "file.py", 1, message, (), info)
    text = JSONFormatter().format(record)
    assert "\n" not in text
    line: Line = json.loads(text)
    return line


def test_lines_breaks_and_odd_characters_stay_inside_of_the_object() -> None:
    message = 'a\nb "c" \x00 \u2028 é'
    assert formatted(message)["message"] == message


def test_a_line_inside_of_a_request_carries_its_identifier() -> None:
    token = CURRENT.set(CurrentRequest("r-1", model="echo"))
    try:
        line = formatted("deep inside")
    finally:
        CURRENT.reset(token)
    assert (line["request_id"], line["model"], line["route"]) == ("r-1", "echo", "other")
    assert "request_id" not in formatted("outside")


def test_a_validation_error_does_not_repeat_the_values_it_refused() -> None:
    class Asked(BaseModel):
        count: int

    brought = "".join(["hunter", "2"])
    try:
        try:
            Asked.model_validate({"count": brought})
        except ValueError as error:
            raise RuntimeError("the answer is wrong") from error
    except RuntimeError as error:
        told = formatted("failed", error=error)["exception"]
    assert brought not in told
    assert "count: Input should be a valid integer" in told
    assert "RuntimeError: the answer is wrong" in told


def test_text_lines_are_the_default_of_a_server(tmp_path: Path) -> None:
    with serving(tmp_path, SHEAF_LOG_JSON="0") as (client, lines):
        client.post("/echo/predict", json=GOOD)
    assert any("sheaf.access" in line and "POST predict echo 200" in line for line in lines)
    assert not any(line.startswith("{") for line in lines)
