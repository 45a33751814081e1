"""What others notice of an attack: the p99 of a small request, quiet and under attack, in one run.

    python -m benchmarks.attack [--seconds 10] [--callers 100] [--only TEXT]

Each attack is sent by so many callers at once, again and again, while one caller asks for a small
answer. The server, the attackers and the caller run in processes of their own; the ratios are what counts.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from http.client import HTTPConnection
from multiprocessing import get_context
from statistics import quantiles
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.attack.process import MIB, Attack, Served, as_text, served
from tests.attack.test_memory_in import ECHO, FLOODS
from tests.attack.test_memory_out import BATCH, LARGE, PATH, SMALL, TOO_LARGE, batch
from tests.http.conftest import GOOD

#: The models served, the small request, and what attacks them.
RUNS: dict[str, tuple[Attack, dict[str, Attack]]] = {
    "EVERY": (Attack(ECHO, as_text(GOOD).encode()), FLOODS),
    "FORECASTS": (
        Attack(PATH, as_text(SMALL).encode()),
        {
            "the largest answer": Attack(PATH, as_text(LARGE).encode()),
            "more than an answer holds": Attack(PATH, as_text(TOO_LARGE).encode()),
            "a batch of 1000 of the largest": Attack(BATCH, batch(LARGE, 1000)),
        },
    ),
}


def p99(server: Served, small: Attack, seconds: float) -> float:
    """Milliseconds of the slowest hundredth of small requests, one after the other; all must be answered."""
    taken: list[float] = []
    media = {"content-type": "application/json"}
    end = time.monotonic() + seconds
    with httpx.Client(base_url=server.url, timeout=120) as client:
        while time.monotonic() < end or len(taken) < 20:
            start = time.monotonic()
            client.post(small.path, content=small.content, headers=media).raise_for_status()
            taken.append(1000 * (time.monotonic() - start))
    return quantiles(taken, n=100)[98]


def attacked(
    server: Served, attack: Attack, small: Attack, callers: int, seconds: float
) -> tuple[float, Counter[int]]:
    """The same under attack, and what the attackers were answered."""
    context = get_context("spawn")  # a fork would have the threads and locks of this process
    over, answers = context.Event(), context.Queue()
    attackers = context.Process(target=_attack, args=(server.url, attack, callers, over, answers))
    attackers.start()
    answers.get()  # they have begun
    found = p99(server, small, seconds)
    over.set()
    counted: Counter[int] = answers.get()
    attackers.join()
    return found, counted


def _attack(url: str, attack: Attack, callers: int, over: Any, answers: Any) -> None:
    """Send it by so many callers, each on a new connection, until it is over; tell what was answered."""
    counted, host = Counter[int](), urlsplit(url).netloc
    headers = {"content-type": "application/json", **attack.headers}

    def send() -> None:
        while not over.is_set():
            with closing(HTTPConnection(host, timeout=120)) as connection:
                connection.request("POST", attack.path, attack.content, headers)
                answer = connection.getresponse()
                answer.read()
            counted[answer.status] += 1

    threads = [threading.Thread(target=send) for _ in range(callers)]
    for thread in threads:
        thread.start()
    answers.put("begun")
    for thread in threads:
        thread.join()
    answers.put(counted)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--callers", type=int, default=100)
    parser.add_argument("--only", default="", help="attacks whose name has this text")
    given = parser.parse_args(arguments)
    print(f"{'attack':42} {'quiet ms':>9} {'p99 ms':>9} {'ratio':>7} {'MiB':>6}  answers")
    for models, (small, attacks) in RUNS.items():
        for name, attack in attacks.items():
            if given.only not in name:
                continue
            with served(f"tests.attack.models:{models}") as server:
                quiet = p99(server, small, given.seconds)
                found, answers = attacked(server, attack, small, given.callers, given.seconds)
                ratio, peak = found / quiet, server.peak // MIB
                print(
                    f"{name:42} {quiet:9.1f} {found:9.1f} {ratio:7.1f} {peak:6}  {dict(answers)}", flush=True
                )


if __name__ == "__main__":
    main()
