"""What the client costs: its import, the first client, and a call beside the same call by bare httpx.

    python benchmarks/sdk.py [--rounds 15] [--calls 1000] [--peers benchmarks/.peers/clients/bin/python]

openai and huggingface_hub are measured beside it where a virtual environment has them:

    python benchmarks/_peers.py clients

Every import is timed in an interpreter of its own; the server of the calls is a process of its own, and
answers each with the same bytes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks._report import goal, interleaved, median_ms, report, table

PEERS = Path(__file__).parent / ".peers/clients/bin/python"
NOWHERE = "http://127.0.0.1:9"
#: label → the statements timed in a fresh interpreter; the first group needs this project, the second peers.
OURS = {
    "empty interpreter": "",
    "import sheaf_client": "import sheaf_client",
    "import httpx": "import httpx",
    "first Sheaf()": f"from sheaf_client import Sheaf; Sheaf('{NOWHERE}')",
    "first Sheaf(), ready to forecast": (
        f"from sheaf_client import Sheaf; Sheaf('{NOWHERE}').time_series.forecast"
    ),
}
THEIRS = {
    "empty interpreter (peers)": "",
    "import openai": "import openai",
    "first OpenAI()": (
        f"from openai import OpenAI; OpenAI(api_key='x', base_url='{NOWHERE}').chat.completions"
    ),
    "import huggingface_hub": "import huggingface_hub",
    "first InferenceClient()": (
        f"from huggingface_hub import InferenceClient; InferenceClient(base_url='{NOWHERE}').text_to_image"
    ),
}
REQUEST: dict[str, Any] = {
    "history": [float(112 + i % 12) for i in range(96)],
    "horizon": 24,
    "frequency": "1h",
}
ANSWER: dict[str, Any] = {
    "request_id": "5f3a0c9e-1d57-4c2b-9d3e-7f1b8a2c4e60",
    "model_type": "time_series",
    "model_name": "m",
    "metadata": {"usage": None, "warnings": []},
    "mean": [100.5] * 24,
    "point": "mean",
    "quantiles": None,
    "samples": None,
    "horizon": 24,
    "frequency": "1h",
    "timestamps": None,
    "item_id": None,
}
#: A server that reads a request by its content-length and answers it with the bytes it was given, with the
#: identifier of the request in them.
SERVER = """
import asyncio, sys

body, known = sys.argv[1].encode(), sys.argv[2].encode()
head = b"HTTP/1.1 200 OK\\r\\ncontent-type: application/json\\r\\ncontent-length: %d\\r\\n\\r\\n"
answer = head % len(body) + body

async def serve(reader, writer):
    while not reader.at_eof():
        try:
            head = await reader.readuntil(b"\\r\\n\\r\\n")
        except asyncio.IncompleteReadError:
            break
        length = next(line for line in head.lower().split(b"\\r\\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.split(b":")[1]))
        mine = [line for line in head.lower().split(b"\\r\\n") if line.startswith(b"x-request-id:")]
        writer.write(answer.replace(known, mine[0].split(b":")[1].strip()) if mine else answer)

async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
"""


def time_starts(interpreter: Path, statements: dict[str, str], rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds by label: `process` from start to exit, `inside` and `cpu` for the statements alone."""
    inside: dict[str, list[float]] = {label: [] for label in statements}
    cpu: dict[str, list[float]] = {label: [] for label in statements}

    def run(label: str, statement: str) -> None:
        code = (
            "import time; t, c = time.perf_counter(), time.process_time()\n"
            f"{statement or 'pass'}\n"
            "print(time.perf_counter() - t, time.process_time() - c)"
        )
        done = subprocess.run([str(interpreter), "-c", code], capture_output=True, text=True, check=True)
        wall, busy = map(float, done.stdout.split())
        inside[label].append(wall)
        cpu[label].append(busy)

    taken = interleaved({label: lambda x=(label, s): run(*x) for label, s in statements.items()}, rounds)
    return {
        label: {
            "process": median_ms(taken[label]),
            "inside": median_ms(inside[label][1:]),
            "cpu": median_ms(cpu[label][1:]),
        }
        for label in statements
    }


def missing_peers(interpreter: Path) -> str | None:
    """Why the peers cannot be measured, None where they can."""
    if not interpreter.is_file():
        return f"no {interpreter}"
    done = subprocess.run(
        [str(interpreter), "-c", "import openai, huggingface_hub"], capture_output=True, check=False
    )
    return f"{interpreter} has not both of openai and huggingface_hub" if done.returncode else None


@contextmanager
def trivial_server() -> Iterator[str]:
    """The URL of a process that gives every request the same answer."""
    command = [sys.executable, "-c", SERVER, json.dumps(ANSWER), ANSWER["request_id"]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


def time_calls(calls: int) -> dict[str, list[float]]:
    """Seconds of each call: by bare httpx, which gives a dict, and by the client, which gives a contract."""
    import httpx

    from sheaf_client import Sheaf
    from sheaf_client.contracts.time_series import TimeSeriesRequest

    with trivial_server() as url, httpx.Client(base_url=url) as bare, Sheaf(url, model="m") as client:
        contract = TimeSeriesRequest.model_validate({"model_name": "m", **REQUEST})
        body = {"model_type": "time_series", "model_name": "m", **REQUEST}
        assert client.time_series.forecast(**REQUEST).mean == ANSWER["mean"]
        return interleaved(
            {
                "httpx": lambda: bare.post("/m/time_series/forecast", json=body).raise_for_status().json(),
                "keywords": lambda: client.time_series.forecast(**REQUEST),
                "contract": lambda: client.time_series.forecast(contract),
            },
            calls,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15, help="interpreters started for each import")
    parser.add_argument("--calls", type=int, default=1000, help="calls of each kind")
    parser.add_argument("--peers", type=Path, default=PEERS, help="interpreter that has the peers")
    given = parser.parse_args()

    starts = time_starts(Path(sys.executable), OURS, given.rounds)
    reason = missing_peers(given.peers)
    if reason:
        print(f"peers skipped: {reason}; see --help")
    else:
        starts |= time_starts(given.peers, THEIRS, given.rounds)
    rows: list[list[str]] = []
    for label, ms in starts.items():
        empty = starts["empty interpreter (peers)" if label in THEIRS else "empty interpreter"]["process"]
        rows.append(
            [
                label,
                f"{ms['inside']:.1f}",
                f"{ms['cpu']:.1f}",
                f"{ms['process']:.1f}",
                f"{ms['process'] / empty:.2f}",
            ]
        )
    text = f"Starts, median of {given.rounds}, milliseconds\n"
    text += table(["", "inside", "cpu", "process", "x empty"], rows)

    taken = time_calls(given.calls)
    calls = {
        name: {
            "median": median_ms(seconds),
            "p10": statistics.quantiles(seconds, n=10)[0] * 1e3,
            "p90": statistics.quantiles(seconds, n=10)[-1] * 1e3,
        }
        for name, seconds in taken.items()
    }
    bare = calls["httpx"]["median"]
    text += f"\n\nCalls to a trivial server, {given.calls} each, milliseconds\n"
    labels = {
        "httpx": "bare httpx, JSON to a dict",
        "keywords": "Sheaf, keywords to a contract",
        "contract": "Sheaf, contract to a contract",
    }
    text += table(
        ["", "p10", "median", "p90", "x httpx", "at p10"],
        [
            [
                labels[name],
                *(f"{ms[part]:.3f}" for part in ("p10", "median", "p90")),
                *(f"{ms[part] / calls['httpx'][part]:.2f}" for part in ("median", "p10")),
            ]
            for name, ms in calls.items()
        ],
    )

    empty, imported = starts["empty interpreter"]["process"], starts["import sheaf_client"]
    goals = [
        goal("import sheaf_client", imported["inside"], 50, "ms")
        if imported["inside"] <= 50
        else goal("import sheaf_client over an empty start", imported["process"] / empty, 1.2, "times"),
        goal("first client", starts["first Sheaf(), ready to forecast"]["inside"], 700, "ms"),
        goal("call by keywords over bare httpx", calls["keywords"]["median"] / bare, 1.3, "times"),
    ]
    report("sdk", text, goals, {"starts": starts, "calls": calls, "peers": reason or "measured"})


if __name__ == "__main__":
    main()
