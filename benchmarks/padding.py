"""Proteins of mixed lengths through ESM-2 (8M): the engine's passes beside batches in order of arrival.

    python benchmarks/padding.py [--rounds 3] [--sequences 64] [--sweep] [--quick]

The checkpoint has the architecture of esm2_t6_8M and random weights, which take the same time. Lengths are
log-uniform from 30 to 1,000 residues. Through the engine each sequence is a request of its own, all at once;
the loops call the library in this process on tensors made before. Everybody has one torch thread, and times
are CPU seconds of this process, since others may share its core.

A cell is one place of a padded batch; waste is the share of cells that hold no token. The bound without
padding is the time that the same sequences would take if each were in a pass of sequences of exactly its own
length, of the size that suits that length best: measured at a few lengths, and per token in between by a
straight line.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Before torch is imported here.
os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from benchmarks._report import goal, report, table
from sheaf.api.molecular import MolecularRequest
from sheaf.backends._families.proteins import AMINO_ACIDS, Pass
from sheaf.backends.esm2 import ESM2Backend
from sheaf.spec import ModelSpec
from sheaf_client import AsyncSheaf
from tests.backends.proteins.checkpoints import make_esm2

#: esm2_t6_8M_UR50D, as its config.json has it.
SHAPE = {"hidden_size": 320, "num_hidden_layers": 6, "num_attention_heads": 20, "intermediate_size": 1280}
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
#: Lengths at which the bound is measured, in tokens.
MEASURED = (32, 64, 128, 256, 512, 1002)
BUDGET = 2048


@dataclass
class Seen:
    """What one way of running the sequences took.

    Attributes:
        seconds: CPU seconds of each round.
        shapes: Rows and tokens of each pass of the latest round.
        answered: Mean time until a caller had its answer over the time until all had, of each round.
    """

    seconds: list[float] = field(default_factory=list)
    shapes: list[tuple[int, int]] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)


class Watched(ESM2Backend):
    """Keeps the shapes of the passes that the model ran; `seen` is shared by all its instances."""

    seen: list[tuple[int, int]] = []  # noqa: RUF012 - shared on purpose

    def passes(self, sequences: Sequence[str]) -> Iterator[Pass]:
        for batch in super().passes(sequences):
            self.seen.append(tuple(batch.inputs["input_ids"].shape))
            yield batch


def make_sequences(count: int) -> list[str]:
    """Proteins with lengths log-uniform from 30 to 1,000."""
    rng = np.random.default_rng(0)
    lengths = np.exp(rng.uniform(np.log(30), np.log(1000), count)).astype(int)
    return ["".join(rng.choice([*AMINO_ACIDS], n)) for n in lengths]


def padded(model: Any, groups: Sequence[Sequence[str]], ids: dict[str, int]) -> Callable[[Seen], None]:
    """The library's own calls for these batches, padded to the longest, pooled over residues."""
    import torch

    inputs: list[tuple[Any, Any]] = []
    for group in groups:
        width = max(map(len, group)) + 2
        tokens = torch.full((len(group), width), ids["<pad>"])
        for row, sequence in enumerate(group):
            line = [ids["<cls>"], *(ids[residue] for residue in sequence), ids["<eos>"]]
            tokens[row, : len(line)] = torch.tensor(line)
        inputs.append((tokens, (tokens != ids["<pad>"]).long()))

    def run(seen: Seen) -> None:
        seen.shapes = [tuple(tokens.shape) for tokens, _ in inputs]
        with torch.inference_mode():
            for tokens, mask in inputs:
                states = model(input_ids=tokens, attention_mask=mask).last_hidden_state
                [row[1 : n - 1].mean(0) for row, n in zip(states, mask.sum(1).tolist(), strict=True)]

    return run


def through_engine(
    client: AsyncSheaf, model: str, requests: Sequence[Sequence[str]]
) -> Callable[[Seen], Any]:
    """All requests at once through the engine."""

    async def run(seen: Seen) -> None:
        Watched.seen.clear()
        done: list[float] = []
        started = time.perf_counter()

        async def call(sequences: Sequence[str]) -> None:
            request = MolecularRequest(model_name=model, sequences=list(sequences))
            await client.molecular.embed(request, timeout=3600)
            done.append(time.perf_counter() - started)

        await asyncio.gather(*map(call, requests))
        seen.shapes = list(Watched.seen)
        seen.answered.append(statistics.mean(done) / max(done))

    return run


def bound(model: Any, sequences: Sequence[str]) -> float:
    """CPU seconds of the sequences without padding, each in the best pass of its own length."""
    import torch

    rates: list[float] = []
    for length in MEASURED:
        best = float("inf")
        for rows in sorted({1, 2, max(1, 1024 // length)}):
            tokens = torch.randint(4, 24, (rows, length), generator=torch.Generator().manual_seed(0))
            mask = torch.ones_like(tokens)
            started = time.process_time()
            with torch.inference_mode():
                model(input_ids=tokens, attention_mask=mask)
            best = min(best, (time.process_time() - started) / tokens.numel())
        rates.append(best)
    tokens_of = np.array([len(sequence) + 2 for sequence in sequences])
    return float((tokens_of * np.interp(tokens_of, MEASURED, rates)).sum())


def waste(seen: Seen, tokens: int) -> float:
    """Share of cells that held no token, in percent."""
    return 100 * (1 - tokens / sum(rows * width for rows, width in seen.shapes))


async def measure(
    path: str, sequences: list[str], rounds: int, *, sweep: bool
) -> tuple[dict[str, Seen], float]:
    """Each way of running the sequences, taking turns, and the bound without padding."""
    import torch
    from transformers import EsmModel, EsmTokenizer

    torch.set_num_threads(1)
    model = EsmModel.from_pretrained(path, add_pooling_layer=False).eval()
    ids = EsmTokenizer.from_pretrained(path).get_vocab()
    eights = [sequences[i : i + 8] for i in range(0, len(sequences), 8)]
    plans: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        f"engine, max_batch_cost {BUDGET:,}": ({}, {"max_batch_cost": BUDGET}),
        "engine, one request of all": ({}, {}),
    }
    if sweep:
        plans["engine, no max_batch_cost"] = {}, {}
        for cost in (1024, 4096):
            plans[f"engine, max_batch_cost {cost:,}"] = {}, {"max_batch_cost": cost}
        for most in (512, 2048, 4096):
            plans[f"tokens_per_pass {most:,}"] = {"tokens_per_pass": most}, {"max_batch_cost": BUDGET}
        for overhead in (0, 64, 10**6):
            plans[f"pass_overhead {overhead:,}"] = {"pass_overhead": overhead}, {"max_batch_cost": BUDGET}
    specs = [
        ModelSpec(
            name=f"m{i}",
            backend_cls=Watched,
            backend_kwargs={"model_id": path, **settings},
            batch_policy=policy,
        )
        for i, (settings, policy) in enumerate(plans.values())
    ]
    async with AsyncSheaf.local(specs) as client:
        ways: dict[str, Callable[[Seen], Any]] = {
            "library, one by one": padded(model, [[sequence] for sequence in sequences], ids),
            "library, eights as they came": padded(model, eights, ids),
        }
        for spec, name in zip(specs, plans, strict=True):
            requests = [sequences] if "one request" in name else [[sequence] for sequence in sequences]
            ways[name] = through_engine(client, spec.name, requests)
        found = {name: Seen() for name in ways}
        least = float("inf")
        for _ in range(rounds):
            for name, run in ways.items():
                started = time.process_time()
                waiting = run(found[name])
                if waiting is not None:
                    await waiting
                found[name].seconds.append(time.process_time() - started)
            least = min(least, bound(model, sequences))
    return found, least


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="times each way has its turn; the least counts")
    parser.add_argument("--sequences", type=int, default=64, help="how many")
    parser.add_argument("--sweep", action="store_true", help="other budgets and overheads too")
    parser.add_argument("--quick", action="store_true", help="a tiny model, one round")
    given = parser.parse_args()
    sequences = make_sequences(given.sequences)
    tokens = sum(len(sequence) + 2 for sequence in sequences)
    with tempfile.TemporaryDirectory() as folder:
        path = str(make_esm2(folder, **(SMALL if given.quick else SHAPE)))
        rounds = 1 if given.quick else given.rounds
        found, least = asyncio.run(measure(path, sequences, rounds, sweep=given.sweep))

    seconds = {name: min(seen.seconds) for name, seen in found.items()}
    eights = seconds["library, eights as they came"]
    rows = [
        [
            name,
            str(len(seen.shapes)),
            f"{waste(seen, tokens):.1f}",
            f"{seconds[name]:.2f}",
            f"{eights / seconds[name]:.2f}",
            f"{seconds[name] / least:.2f}",
            f"{statistics.mean(seen.answered):.2f}" if seen.answered else "",
        ]
        for name, seen in found.items()
    ]
    rows.append(["bound without padding", "", "0.0", f"{least:.2f}", f"{eights / least:.2f}", "1.00", ""])
    header = ["", "passes", "waste %", "CPU s", "eights / it", "it / bound", "mean / last answer"]
    text = f"{len(sequences)} sequences, {tokens:,} tokens\n" + table(header, rows)
    ours = f"engine, max_batch_cost {BUDGET:,}"
    goals = [
        goal("padding of the engine's passes", waste(found[ours], tokens), 5, "% of cells"),
        goal("eights as they came over the engine", eights / seconds[ours], 2, "times", least=True),
        goal("engine over one by one", seconds[ours] / seconds["library, one by one"], 1, "times"),
        goal("engine over the bound without padding", seconds[ours] / least, 1.15, "times"),
    ]
    figures = {
        "tokens": tokens,
        "bound_cpu_seconds": least,
        "ways": {
            name: {
                "cpu_seconds": seen.seconds,
                "passes": seen.shapes,
                "waste_percent": waste(seen, tokens),
                "answered": seen.answered,
            }
            for name, seen in found.items()
        },
    }
    report("padding", text, goals, figures)


if __name__ == "__main__":
    main()
