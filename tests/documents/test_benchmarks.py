"""The benchmarks run alone and print a table and a line of JSON. What they measure is judged elsewhere."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks._servers import StartError, Target, serving

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(name: str, *arguments: str, folder: Path) -> tuple[str, dict[str, Any]]:
    command = [sys.executable, str(BENCHMARKS / name), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=True)
    *text, last = done.stdout.splitlines()
    return "\n".join(text), json.loads(last)


def test_wire_gives_every_step_in_both_forms(tmp_path: Path) -> None:
    text, content = run("wire.py", "--rounds", "1", "--side", "64", folder=tmp_path)
    steps = {"client encode", "server decode", "server encode", "client decode", "four steps", "whole call"}
    assert "client encode" in text
    for figures in content["figures"]["milliseconds"].values():
        assert figures.keys() == steps | {"body bytes"}
    sizes = [figures["body bytes"] for figures in content["figures"]["milliseconds"].values()]
    pixels = 4 * 4 * 64 * 64
    assert sizes[0] > pixels * 4 / 3 > sizes[1] > pixels
    assert [goal["limit"] for goal in content["goals"]] == [0.1]


def test_sdk_says_that_it_skips_peers_that_are_not_there(tmp_path: Path) -> None:
    text, content = run(
        "sdk.py", "--rounds", "2", "--calls", "5", "--peers", str(tmp_path / "python"), folder=tmp_path
    )
    assert "peers skipped" in text
    assert {"empty interpreter", "import sheaf_client", "first Sheaf()"} <= content["figures"][
        "starts"
    ].keys()
    assert content["figures"]["calls"].keys() == {"httpx", "keywords", "contract"}
    assert [goal["limit"] for goal in content["goals"]][1:] == [700, 1.3]


def test_overhead_measures_calls_of_this_process_and_of_a_server(tmp_path: Path) -> None:
    options = ["--seconds", "0.2", "--callers", "1,2", "--repeats", "1", "--rounds", "20"]
    text, content = run("overhead.py", *options, "--only", "engine,async,starlette,embedded", folder=tmp_path)
    figures = content["figures"]
    assert figures["servers"].keys() == {"engine", "async", "starlette", "embedded"}
    for by_count in figures["servers"].values():
        assert by_count.keys() == {"1", "2"}
        assert all(seen["rate"] > 0 and seen["failed"] == 0 for seen in by_count.values())
    sizes = figures["answer_bytes"]
    assert sizes.keys() == {"starlette", "embedded"}
    assert max(sizes.values()) - min(sizes.values()) < 20
    assert figures["skipped"] == {}
    # The ratio is of the worst number of callers.
    last = content["goals"][-1]
    ratios = {
        count: figures["servers"]["embedded"][count]["rate"] / seen["rate"]
        for count, seen in figures["servers"]["starlette"].items()
    }
    assert last["value"] == round(min(ratios.values()), 4)
    assert figures["load"] in text


def test_overload_tells_what_was_answered_refused_and_given_up(tmp_path: Path) -> None:
    options = [
        "--seconds",
        "1",
        "--service-ms",
        "20",
        "--batch",
        "2",
        "--deadline",
        "0.2",
        "--only",
        "embedded",
    ]
    text, content = run("overload.py", *options, folder=tmp_path)
    seen = content["figures"]["targets"]["embedded"]
    assert content["figures"]["queue"] == 10
    assert 0 < seen["peak"] <= 110
    # Four times the peak does not fit: some of it is refused, and every request is accounted for.
    assert seen["sent"] == sum(seen["outcomes"].values())
    assert seen["refused_count"] > 0
    assert seen["retry_after_count"] == seen["refused_count"]
    assert seen["good_count"] <= seen["sent"] - seen["refused_count"]
    assert seen["memory"]["most"] >= seen["memory"]["start"] > 0
    assert "refused (429, 503)" in text


def test_jobs_measures_queues_by_their_depth(tmp_path: Path) -> None:
    text, content = run("jobs.py", "--waiting", "50,500", "--calls", "8", "--jobs", "200", folder=tmp_path)
    figures = content["figures"]
    assert figures["depths"].keys() == {"50", "500"}
    assert all(seen.keys() == {"insert", "enqueue", "lease"} for seen in figures["depths"].values())
    assert figures["workers"]["SQLite"]["rate"] > 0
    assert "two workers" in text


@pytest.mark.torch
def test_forecast_measures_the_bare_loop_and_the_same_model_served(tmp_path: Path) -> None:
    options = ["--seconds", "0.4", "--callers", "1,2", "--repeats", "1", "--batches", "1,2"]
    _, content = run("forecast.py", *options, "--only", "local,embedded", folder=tmp_path)
    figures = content["figures"]
    assert figures["best_bare"] == max(seen["rate"] for seen in figures["bare"].values())
    assert figures["targets"].keys() == {"local", "embedded"}
    for by_count in figures["targets"].values():
        assert all(seen["rate"] > 0 and seen["failed"] == 0 for seen in by_count.values())


@pytest.mark.torch
def test_diffusion_draws_the_same_pictures_in_every_way(tmp_path: Path) -> None:
    text, content = run("diffusion.py", "--quick", folder=tmp_path)
    figures = content["figures"]
    assert figures["ways"].keys() == {"one by one", "whole requests", "steps", "steps, shortest first"}
    for seen in figures["ways"].values():
        assert seen["rate"] > 0
        assert 0 < seen["short_mean"] <= seen["short_p99"] <= seen["p99"]
    assert figures["largest_difference"] <= 1
    assert "a step alone takes" in text


@pytest.mark.torch
def test_adapters_measures_mixed_batches_beside_the_library(tmp_path: Path) -> None:
    text, content = run("adapters.py", "--quick", folder=tmp_path)
    figures = content["figures"]
    assert figures["ways"].keys() == {
        "one by one",
        "grouped by adapter",
        "mixed batches",
        "without adapters",
    }
    assert all(seen["rate"] > 0 for seen in figures["ways"].values())
    assert figures["largest_difference"] <= 1, "the same pictures, whatever shared their batch"
    assert figures["adapter_bytes"] > 0
    assert "set_adapters" in text


@pytest.mark.torch
def test_padding_measures_the_engine_beside_the_librarys_own_batches(tmp_path: Path) -> None:
    _, content = run("padding.py", "--quick", "--sequences", "12", folder=tmp_path)
    ways = content["figures"]["ways"]
    for seen in ways.values():
        assert sum(rows for rows, _ in seen["passes"]) == 12
        cells = sum(rows * tokens for rows, tokens in seen["passes"])
        assert seen["waste_percent"] == pytest.approx(100 * (1 - content["figures"]["tokens"] / cells))
    assert ways["library, one by one"]["waste_percent"] == 0
    engine = next(seen for name, seen in ways.items() if name.startswith("engine, max_batch_cost"))
    assert engine["waste_percent"] < ways["library, eights as they came"]["waste_percent"]
    assert content["goals"][0]["value"] == pytest.approx(engine["waste_percent"], abs=1e-3)


@pytest.mark.torch
def test_context_tells_cached_calls_from_refits(tmp_path: Path) -> None:
    text, content = run("context.py", "--quick", folder=tmp_path)
    figures = content["figures"]
    for name in ("sklearn", "tabpfn"):
        assert min(figures[name][key] for key in ("refit_ms", "first_ms", "rows_ms", "id_ms")) > 0
        assert figures[name]["difference"] <= 1e-6
        assert 1 <= figures[name]["batch"] <= 4
        assert figures[name]["context_mb"] > 0
    assert [goal["limit"] for goal in content["goals"]] == [10, 1e-6] * 2
    assert "not all were run" in text


def test_a_server_that_does_not_come_up_is_told_with_its_last_words() -> None:
    target = Target([sys.executable, "-c", "raise SystemExit('no such model {port}')"], "/", {})
    with pytest.raises(StartError, match="no such model"), serving(target):
        pass


def test_the_client_keeps_its_rate_whatever_the_server_does(tmp_path: Path) -> None:
    body = tmp_path / "body.json"
    body.write_text("{}")
    command = [sys.executable, str(BENCHMARKS / "_client.py")]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        options = ["--rate", "50", "--deadline", "0.1", "--seconds", "1"]
        seen = json.loads(subprocess.check_output([*command, url, str(body), *options], timeout=60))
    assert seen["outcomes"].keys() == {"hung up"}
    assert 20 < seen["sent"] < 90
    assert seen["good"] == {}


@pytest.mark.torch
def test_graphs_measures_both_potentials_one_by_one_and_batched(tmp_path: Path) -> None:
    text, content = run("graphs.py", "--quick", "--only", "chgnet", folder=tmp_path)
    figures = content["figures"]
    assert figures.keys() == {"chgnet"}
    steps = {"ase", "model", "batch", "single", "concurrent", "many", "graphs", "ours"}
    assert figures["chgnet"].keys() == steps
    assert all(seen["cpu_s"] > 0 and seen["wall_s"] > 0 for seen in figures["chgnet"].values())
    assert [goal["limit"] for goal in content["goals"]] == [3.0, 3.0]
    assert "Sheaf, one request of 32" in text
