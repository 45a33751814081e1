"""Fuzzes a server over an echo of every contract by bodies that follow from a seed.

    python -m tests.attack.fuzzing --seconds 600 --seed 7

Whatever is sent: no 5xx but 503 and 504, each refusal a problem document of the schema, each answer
one of its contract, each stream ended by a result or an error, nothing in the log, and the next good
request answered.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import logging
import re
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator

from sheaf.contract.operations import names_of
from sheaf.embedded import EmbeddedServer
from sheaf_client._msgpack import unpack, validate_unpacked
from sheaf_client._operation import Operation
from sheaf_client.contracts.base import BaseResponse
from sheaf_client.errors import BY_CODE, FAULT_CODES
from tests.attack.bodies import JSON_TYPE, MSGPACK_TYPE, Sent, bundle, made, plain
from tests.contract.echo import specs
from tests.contract.exchanges import BY_TYPE, TYPES, cases, expected, wire
from tests.contract.values import schemas

#: Most bytes of a refusal: it tells of a body, and does not repeat it.
LONGEST_REFUSAL = 64 * 1024
#: Requests between two good ones on the same connection.
BETWEEN = 20
#: Failures after which there is enough to do.
ENOUGH = 10
#: Seconds that an answer may take; models here take none.
PATIENCE = 60
_POINTER = re.compile(r"(/([^~/]|~[01])*)*", re.DOTALL)


class WrongError(Exception):
    """What a server did that it must not do."""


@dataclass
class Found:
    """A request and what was wrong with its answer."""

    sent: Sent
    wrong: str

    def __str__(self) -> str:
        return f"{self.wrong}\n  as a file of the corpus:\n{self.sent.document()}\n"


@dataclass
class Answer:
    """A whole answer, its body decompressed."""

    status: int
    headers: dict[str, str]
    body: bytes


class Connection:
    """A connection that is kept as long as the server keeps it."""

    def __init__(self, url: str) -> None:
        self._address = ("127.0.0.1", int(url.rsplit(":", 1)[1]))
        self._socket: socket.socket | None = None
        self._read = bytearray()

    def ask(self, sent: Sent) -> Answer:
        """The answer; raises `WrongError` where there is none."""
        if self._socket is None:
            self._socket = socket.create_connection(self._address, PATIENCE)
        try:
            with suppress(BrokenPipeError, ConnectionResetError):  # an early refusal may still be read
                self._socket.sendall(sent.raw())
            answer = self._answer()
        except (OSError, WrongError) as error:
            self.close()
            raise WrongError(f"no answer: {error!r}") from error
        if answer.headers.get("connection") == "close":
            self.close()
        return answer

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self._read.clear()

    def _answer(self) -> Answer:
        start, *lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if headers.get("transfer-encoding") == "chunked":
            parts: list[bytes] = []
            while size := int(self._until(b"\r\n"), 16):
                parts.append(self._bytes(size))
                self._until(b"\r\n")
            self._until(b"\r\n")
            body = b"".join(parts)
        else:
            body = self._bytes(int(headers["content-length"]))
        return Answer(int(start.split()[1]), headers, plain(headers.get("content-encoding", ""), body))

    def _until(self, end: bytes) -> bytes:
        while (place := self._read.find(end)) < 0:
            self._more()
        return self._taken(place, len(end))

    def _bytes(self, size: int) -> bytes:
        while len(self._read) < size:
            self._more()
        return self._taken(size, 0)

    def _taken(self, size: int, end: int) -> bytes:
        taken = bytes(self._read[:size])
        del self._read[: size + end]
        return taken

    def _more(self) -> None:
        assert self._socket is not None
        part = self._socket.recv(2**18)
        if not part:
            raise WrongError("the connection ended")
        self._read += part


class Failures(logging.Handler):
    """Keeps what is logged as an error, or with a traceback, on any logger of this process."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info or record.levelno >= logging.ERROR:
            self.lines.append(logging.Formatter("%(name)s: %(message)s").format(record)[-4000:])

    @contextmanager
    def listening(self) -> Iterator[None]:
        loggers = [logging.getLogger(name) for name in (None, "sheaf", "uvicorn", "uvicorn.error")]
        heard = [logger for logger in loggers if logger.name == "root" or not logger.propagate]
        for logger in heard:
            logger.addHandler(self)
        try:
            yield
        finally:
            for logger in heard:
                logger.removeHandler(self)


@cache
def _problems() -> Draft202012Validator:
    known = schemas()
    return Draft202012Validator({**known["Problem"], "components": {"schemas": {"Fault": known["Fault"]}}})


@cache
def _responses() -> dict[tuple[str, str | None], type[BaseResponse]]:
    """The contracts of answers by what the answers say they are."""
    found: dict[tuple[str, str | None], type[BaseResponse]] = {}
    for operation in BY_TYPE.values():
        named = operation.name != names_of(operation.model_type)[0]
        found[operation.model_type, operation.name if named else None] = operation.response
    return found


@cache
def _codes() -> frozenset[str]:
    """The codes of faults: those of the table, and the names of the rules."""
    rules = re.findall(r'"rule": "(\w+)"', json.dumps([schema.body for schema in bundle().schemas.values()]))
    return frozenset({*FAULT_CODES, *rules, "bytes_match_shape"})


def check(sent: Sent, answer: Answer) -> None:
    """Raise `WrongError` where the answer is none that the document allows."""
    media = answer.headers.get("content-type", "").partition(";")[0]
    if answer.status != 200:
        if media != "application/problem+json" or len(answer.body) > LONGEST_REFUSAL:
            raise WrongError(f"{answer.status} is no problem document: {media}, {answer.body[:300]!r}")
        problem = json.loads(answer.body)
        _check_problem(problem)
        if problem["status"] != answer.status or problem["request_id"] != answer.headers["x-request-id"]:
            raise WrongError(f"{answer.status} with another's document: {problem}")
        return
    route = sent.path.rpartition("/")[2]
    if route == "stream":
        if media != "text/event-stream":
            raise WrongError(f"a stream is {media}")
        _check_events(answer.body)
        return
    document = unpack(answer.body) if media == MSGPACK_TYPE else _json(answer.body)
    if media not in (JSON_TYPE, MSGPACK_TYPE):
        raise WrongError(f"an answer is {media}")
    for item in document["responses"] if route == "batch" else [document]:
        if "model_type" in item:
            _check_response(item)
        else:
            _check_problem(item)


def _json(text: bytes | str) -> Any:
    def refuse(name: str) -> Any:
        raise WrongError(f"an answer holds {name}")

    return json.loads(text, parse_constant=refuse)


def _check_problem(problem: Any) -> None:
    error = next(_problems().iter_errors(problem), None)
    if error is not None:
        raise WrongError(f"no problem of the schema, {error.message}: {problem}")
    kind = BY_CODE.get(problem["code"])
    if kind is None or kind.status != problem["status"] or not problem.get("detail"):
        raise WrongError(f"no such problem: {problem}")
    if kind.status >= 500 and kind.status not in (503, 504):
        raise WrongError(f"the server failed: {problem}")
    faults = problem.get("errors", [])
    if kind.code == "invalid" and not 1 <= len(faults) <= 20:
        raise WrongError(f"{len(faults)} faults: {problem}")
    for fault in faults:
        known = fault["code"] in _codes() and fault["message"]
        if not known or not _POINTER.fullmatch(fault["path"]) or max(map(len, fault.values())) > 2000:
            raise WrongError(f"no such fault: {fault}")


def _check_response(answer: Any) -> None:
    kind = _responses()[answer["model_type"], answer.get("operation")]
    validate_unpacked(kind, answer, strict=False)


def _check_events(body: bytes) -> None:
    """Raise unless there is a list of events whose last, and no other, is a result or an error."""
    kinds: list[str] = []
    for block in body.decode().replace("\r\n", "\n").split("\n\n"):
        lines = [line.partition(": ") for line in block.split("\n") if line and not line.startswith(":")]
        members = {name: value for name, _, value in lines}
        if not members:
            continue
        kinds.append(members["event"])
        data = _json(members["data"])
        if members["event"] == "result":
            _check_response(data)
        elif members["event"] == "error":
            _check_problem(data["problem"])
    if not kinds or [kind for kind in kinds if kind != "progress"] != kinds[-1:]:
        raise WrongError(f"a stream of {kinds}")


@dataclass
class Target:
    """A server under attack over one connection, and what was found."""

    server: EmbeddedServer
    found: list[Found] = field(default_factory=list[Found])
    statuses: Counter[int] = field(default_factory=Counter[int])
    failures: Failures = field(default_factory=Failures)

    def __post_init__(self) -> None:
        self._connection = Connection(self.server.url)
        self._good = itertools.cycle(TYPES)
        self._since = 0

    def send(self, sent: Sent) -> None:
        """Send a request, look at its answer, and now and then at that to a good one."""
        try:
            answer = self._connection.ask(sent)
            self.statuses[answer.status] += 1
            check(sent, answer)
            self._since += 1
            if self._since >= BETWEEN:
                self.be_good()
        except WrongError as error:
            self.found.append(Found(sent, str(error)))
        except Exception as error:  # noqa: BLE001 - an answer that cannot be read is wrong as well
            self.found.append(Found(sent, f"the answer cannot be read: {error!r}"))
        self._look_at_log(sent)

    def be_good(self) -> None:
        """Raise `WrongError` where a good request on the same connection is not answered as always."""
        self._since = 0
        name = next(self._good)
        sent, wanted = _good(name)
        answer = self._connection.ask(sent)
        given = BY_TYPE[name].response.model_validate_json(answer.body) if answer.status == 200 else None
        if given is None or wire(given) != wanted:
            raise WrongError(
                f"afterwards, a good request of {name} got {answer.status}: {answer.body[:300]!r}"
            )

    def settle(self) -> None:
        """Look for what is left: requests that wait, and what is only logged when it is collected."""
        end = time.monotonic() + PATIENCE
        while waiting := self._waiting():
            if time.monotonic() > end:
                self.found.append(Found(Sent("/metrics"), f"still in line: {waiting}"))
                break
        gc.collect()
        self._look_at_log(Sent("/", why="logged by one of those before"))
        self._connection.close()

    def _look_at_log(self, sent: Sent) -> None:
        if self.failures.lines:
            self.found.append(Found(sent, "logged: " + "\n".join(self.failures.lines)))
            self.failures.lines.clear()

    def _waiting(self) -> list[str]:
        """The lines of the metrics for models in whose line somebody waits."""
        with socket.create_connection(
            ("127.0.0.1", int(self.server.url.rsplit(":", 1)[1])), PATIENCE
        ) as asking:
            asking.sendall(b"GET /metrics HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
            text = b"".join(iter(lambda: asking.recv(2**16), b"")).decode()
        depths = re.findall(r"^sheaf_queue_depth\{.*\} .*$", text, re.MULTILINE)
        assert depths, "the metrics tell no depth"
        return [line for line in depths if float(line.rpartition(" ")[2]) > 0]


@cache
def _good(name: str) -> tuple[Sent, Any]:
    """A good request of an operation, and its answer."""
    operation: Operation[Any, Any] = BY_TYPE[name]
    body = cases(name, "valid")[0].body
    request = operation.request.model_validate_json(json.dumps(body), strict=True, by_name=False)
    path = operation.path.format(model_name=name)
    return Sent(path, {"content-type": JSON_TYPE}, json.dumps(body).encode()), expected(request)


@contextmanager
def target() -> Iterator[Target]:
    """A server over an echo of every contract."""
    with EmbeddedServer(specs(), port=0) as server:
        found = Target(server)
        with found.failures.listening():
            yield found


def threads() -> set[str]:
    """The threads of this process, without those that are kept for more work, of which there is a bound."""
    return {thread.name for thread in threading.enumerate() if "AnyIO" not in thread.name}


def fuzz(attacked: Target, seed: int, numbers: Iterable[int]) -> None:
    """Send requests of a seed until enough is found."""
    for number in numbers:
        attacked.send(made(seed, number))
        if len(attacked.found) >= ENOUGH:
            break


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz the server and the client in turns for some time, and print what was found."""
    from tests.attack.fuzzed_answers import fuzz_client

    parser = argparse.ArgumentParser(prog="tests.attack.fuzzing", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="how long")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="what the bodies follow from")
    given = parser.parse_args(arguments)
    end, turn, sent = time.monotonic() + given.seconds, 500, 0
    wrong: list[str] = []
    print(f"seed {given.seed}", flush=True)
    with target() as attacked:
        while time.monotonic() < end and len(wrong) < ENOUGH:
            numbers = range(sent, sent + turn)
            fuzz(attacked, given.seed, numbers)
            wrong += told([*map(str, attacked.found), *fuzz_client(given.seed, numbers)])
            attacked.found.clear()
            sent += turn
        attacked.settle()
        wrong += told(list(map(str, attacked.found)))
    statuses = ", ".join(f"{count} x {status}" for status, count in sorted(attacked.statuses.items()))
    print(f"seed {given.seed}: {sent} requests and {sent} answers, {len(wrong)} wrong; {statuses}")
    return 1 if wrong else 0


def told(found: list[str]) -> list[str]:
    """What was found, printed as soon as it was."""
    for each in found:
        print(each, flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
