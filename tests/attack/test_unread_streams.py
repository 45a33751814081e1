"""Streams that nobody reads: what waits for their readers is counted with all that a server holds."""

from __future__ import annotations

import base64
import re
import socket
from contextlib import ExitStack
from typing import Any

import httpx
import numpy as np

from sheaf.api.materials import AtomsProgress
from sheaf.engine.streams import MAX_PENDING, MAX_PENDING_BYTES, Pending
from sheaf.http.limits import Limits
from sheaf.http.memory import Memory, Share
from sheaf_client.errors import BackendError
from tests.attack.process import MIB, MOST, Attack, as_text, served
from tests.engine.harness import wait_until
from tests.http.conftest import connect_to, whole

LIMITS = Limits(max_body=MIB, max_memory=16 * MIB)
ATOMS = 10_000


def event(step: int) -> AtomsProgress:
    positions = np.zeros((ATOMS, 3), np.float32)
    told: dict[str, Any] = {"positions": positions, "n_atoms": ATOMS, "energy": 0.0, "max_force": 0.0}
    return AtomsProgress(step=step, total_steps=1000, **told)


def test_what_waits_for_readers_is_counted() -> None:
    memory = Memory(LIMITS)
    whole_of_it = memory.left
    streams = [Pending(Share(memory, f"caller {n % 4}").has_room) for n in range(20)]
    for step in range(1, 51):
        for pending in streams:
            pending.put(event(step))
    assert 0 <= memory.left < whole_of_it / 2
    for pending in streams:
        pending.put(BackendError("x"))
    # Who reads late gets what was kept of the progress, and the end in any case.
    kept = list(iter(streams[0].take, None))
    assert isinstance(kept[-1], BackendError)
    for pending in streams:
        pending.close()
        pending.put(event(51))
        assert pending.take() is None
    assert memory.left == whole_of_it


def test_where_there_is_no_room_the_end_arrives_nevertheless() -> None:
    pending = Pending(lambda size: size <= 0)
    for step in range(1, 2 * MAX_PENDING):
        pending.put(event(step))
    assert pending.take() is None
    pending.put(BackendError("x"))
    assert isinstance(pending.take(), BackendError)


def test_one_stream_waits_with_so_much_at_most() -> None:
    pending = Pending()
    for step in range(1, 1001):
        pending.put(event(step))
    kept = list(iter(pending.take, None))
    assert 12 * ATOMS * len(kept) <= MAX_PENDING_BYTES < 12 * ATOMS * (len(kept) + 1)


def test_streams_that_nobody_reads_take_no_gigabyte() -> None:
    count, atoms = 24, 50_000
    body = {
        "operation": "molecular_dynamics",
        "atomic_numbers": [1] * atoms,
        "positions_b64": base64.b64encode(bytes(12 * atoms)).decode(),
        "n_steps": 100,
        "temperature_k": 300,
    }
    attack = Attack("/atoms/stream", as_text(body).encode())
    with ExitStack() as stack:
        server = stack.enter_context(served("tests.attack.models:MOVING"))

        def ended() -> bool:
            """Whether each was told to its end, or refused: so many hold as much as one caller may."""
            text = httpx.get(f"{server.url}/metrics", timeout=60).text
            told = re.findall(r'{(?:code="overloaded",|.*outcome="invalid")[^ ]* ([0-9.]+)', text)
            return sum(map(float, told)) == count

        for _ in range(count):
            connection = stack.enter_context(connect_to(server.url))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.sendall(whole(body, attack.path))
        wait_until(ended, 60)
        assert server.peak < MOST
