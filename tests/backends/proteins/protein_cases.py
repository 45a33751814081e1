"""Sequences, requests and comparisons that the tests of the protein language models share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sheaf.backends._families.proteins import AMINO_ACIDS

#: Lengths that fill passes, make padding, and stand alone.
MIXES = {
    "one": [7],
    "equal": [12] * 5,
    "near": [30, 31, 29, 33, 30],
    "far": [1, 300, 2, 150, 3, 90],
    "many": [1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 20, 20, 20],
}


def protein(length: int, seed: int = 0, *, masks: int = 0) -> str:
    """A random protein in both cases, with some residues masked, ambiguous or rare."""
    rng = np.random.default_rng([length, seed])
    residues = list(rng.choice([*AMINO_ACIDS, *AMINO_ACIDS.lower(), *"XBZUO-."], size=length))
    for place in rng.choice(length, size=min(masks, length), replace=False):
        residues[place] = "<mask>"
    return "".join(residues)


def proteins(mix: str, seed: int = 0) -> list[str]:
    """A protein of each length of that mix, every third with a masked residue."""
    return [protein(n, seed + i, masks=1 if i % 3 == 1 else 0) for i, n in enumerate(MIXES[mix])]


def assert_close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=2e-5, atol=2e-5)


def library_inputs(tokenizer: Any, sequence: str) -> Any:
    """What the library's own tokenizer makes of one sequence, which it wants in upper case."""
    return tokenizer([sequence.upper().replace("<MASK>", "<mask>")], return_tensors="pt")


def without_weight(checkpoint: Path, name: str, folder: Path) -> Path:
    """A copy of a checkpoint that lacks one weight."""
    from safetensors.torch import load_file, save_file

    weights = load_file(checkpoint / "model.safetensors")
    del weights[name]
    copy_files(checkpoint, folder, leave="model.safetensors")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def copy_files(checkpoint: Path, folder: Path, *, leave: str) -> Path:
    """A copy of a checkpoint without one of its files."""
    for file in checkpoint.iterdir():
        if file.name != leave:
            (folder / file.name).write_bytes(file.read_bytes())
    return folder
