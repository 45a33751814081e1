"""Energies, forces and stress of 32 crystals of 2 to 60 atoms: batched here, and one by one by the libraries.

    python benchmarks/graphs.py [--rounds 5] [--only chgnet,mace] [--channels 128] [--quick]

CHGNet has its trained weights; MACE has the size of the small foundation model and random weights, which take
the same time. One torch thread each. What counts is processor time: all of it is computing, and other work on
the machine does not show in it. Wall time stands beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Before torch is imported here.
os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from ase import Atoms
from ase.build import bulk

from benchmarks._report import goal, report, table
from sheaf.spec import ModelSpec
from sheaf_client import AsyncSheaf

COUNT = 32
TIMED = {
    "ase": "library's calculator, one by one",
    "model": "library's model, one by one",
    "batch": "library's model, its own batches",
    "single": "Sheaf, one request after another",
    "concurrent": "Sheaf, 32 requests at once",
    "many": "Sheaf, one request of 32",
}
#: What of them is spent on neighbours and graphs.
PARTS = {"graphs": "library's graphs, one by one", "ours": "Sheaf's graphs"}


def structures(count: int) -> list[Atoms]:
    """Crystals of 2 to 60 atoms, dense and open, out of their places."""
    cells = [
        bulk("Si"),
        bulk("NaCl", "rocksalt", a=5.64, cubic=True),
        bulk("Si", cubic=True) * (2, 1, 1),
        bulk("Cu", cubic=True) * (2, 1, 1),
        bulk("MgO", "rocksalt", a=4.2, cubic=True) * (2, 1, 1),
        bulk("Fe", a=2.87) * (3, 3, 3),
        bulk("GaAs", "zincblende", a=5.65, cubic=True) * (2, 2, 1),
        bulk("Ti") * (5, 3, 2),
    ]
    found = [cells[i % len(cells)].copy() for i in range(count)]
    for i, atoms in enumerate(found):
        atoms.rattle(0.05, seed=i)
    return found


class CHGNet:
    """The library's CHGNet, as its users call it."""

    def __init__(self, _: Path) -> None:
        from chgnet.model import CHGNet, CHGNetCalculator
        from pymatgen.io.ase import AseAtomsAdaptor

        self.spec = ModelSpec(name="chgnet", backend="chgnet")
        self._model = CHGNet.load(use_device="cpu", verbose=False)
        self.calculator = CHGNetCalculator(self._model, use_device="cpu")
        self._structure: Any = AseAtomsAdaptor.get_structure

    def model(self, atoms: list[Atoms], batch: int) -> None:
        self._model.predict_structure([self._structure(a) for a in atoms], task="efs", batch_size=batch)

    def graphs(self, atoms: list[Atoms]) -> None:
        for one in atoms:
            self._model.graph_converter(self._structure(one))

    @staticmethod
    def ours(atoms: list[Any], pairs: list[Any]) -> None:
        from sheaf.backends._models.chgnet.graphs import join_graphs

        join_graphs(atoms, pairs, 3.0)

    cutoff = 6.0
    batch = 16  # the library's default


class MACE:
    """The library's MACE, as its users call it."""

    channels = 128

    def __init__(self, folder: Path) -> None:
        import torch

        from sheaf.backends._models.mace.library import mace
        from sheaf.backends.mace import convert
        from tests.backends.materials.checkpoints import make_mace

        o3 = mace("e3nn.o3")
        size = {"hidden_irreps": o3.Irreps(f"{self.channels}x0e"), "MLP_irreps": o3.Irreps("16x0e")}
        size |= {"max_ell": 3, "correlation": 3, "r_max": 6.0, "radial_MLP": [64, 64, 64]}
        path = make_mace(folder / "small.model", **size)
        convert(path, folder / "small")
        self.spec = ModelSpec(name="mace", backend="mace", backend_kwargs={"model_id": str(folder / "small")})
        model = torch.load(path, weights_only=False)
        self.calculator = mace("mace.calculators.mace").MACECalculator(
            models=[model], default_dtype="float32"
        )
        self._data, self._geometric = mace("mace.data"), mace("mace.tools.torch_geometric")

    def _graph(self, atoms: Atoms) -> Any:
        calculator, data = self.calculator, self._data
        keys = data.KeySpecification(info_keys=calculator.info_keys, arrays_keys=calculator.arrays_keys)
        config = data.config_from_atoms(atoms, key_specification=keys, head_name=calculator.head)
        return data.AtomicData.from_config(
            config, z_table=calculator.z_table, cutoff=calculator.r_max, heads=calculator.available_heads
        )

    def model(self, atoms: list[Atoms], batch: int) -> None:
        for i in range(0, len(atoms), batch):
            graphs = [self._graph(one) for one in atoms[i : i + batch]]
            joined = self._geometric.Batch.from_data_list(graphs)
            self.calculator.models[0](joined.to_dict(), compute_stress=True)

    def graphs(self, atoms: list[Atoms]) -> None:
        for one in atoms:
            self._graph(one)

    @staticmethod
    def ours(atoms: list[Any], pairs: list[Any]) -> None:
        """The graph of a MACE is no more than its pairs."""

    cutoff = 6.0
    batch = 8  # more takes many gigabytes


LIBRARIES: dict[str, type[CHGNet] | type[MACE]] = {"chgnet": CHGNet, "mace": MACE}


async def measure(library: CHGNet | MACE, count: int, rounds: int) -> dict[str, tuple[float, float]]:
    """Seconds of the processor and of the clock for all structures, medians of rounds that take turns."""
    import torch

    from sheaf.backends._families.atoms.neighbors import find_pairs
    from sheaf.backends._families.atoms.structures import Structure

    torch.set_num_threads(1)
    atoms = structures(count)
    yes = np.ones(3, dtype=np.bool_)
    plain = [
        Structure(a.numbers.astype(np.int64), a.positions, np.array(a.cell), yes, has_cell=True)
        for a in atoms
    ]
    name = library.spec.name

    def by_calculator() -> None:
        for one in atoms:
            fresh = one.copy()
            fresh.calc = library.calculator
            fresh.get_potential_energy()
            fresh.get_forces()

    def our_graphs() -> None:
        library.ours(plain, [find_pairs(one, library.cutoff) for one in plain])

    async with AsyncSheaf.local([library.spec]) as client:
        compute = client.materials.compute

        async def one_by_one() -> None:
            for one in atoms:
                await compute(one, model=name, compute_stress=True)

        async def at_once() -> None:
            await asyncio.gather(*(compute(one, model=name, compute_stress=True) for one in atoms))

        async def many() -> None:
            await compute(structures=atoms, model=name, compute_stress=True)

        steps: dict[str, Callable[[], Any]] = {
            "ase": by_calculator,
            "model": lambda: library.model(atoms, 1),
            "batch": lambda: library.model(atoms, library.batch),
            "single": one_by_one,
            "concurrent": at_once,
            "many": many,
            "graphs": lambda: library.graphs(atoms),
            "ours": our_graphs,
        }
        taken: dict[str, list[tuple[float, float]]] = {step: [] for step in steps}
        for number in range(rounds + 1):
            for step, run in steps.items():
                start = time.process_time(), time.perf_counter()
                waiting = run()
                if waiting is not None:
                    await waiting
                if number:  # the first round warms up
                    taken[step].append((time.process_time() - start[0], time.perf_counter() - start[1]))
    return {
        step: (statistics.median(cpu for cpu, _ in several), statistics.median(wall for _, wall in several))
        for step, several in taken.items()
    }


def describe(found: dict[str, dict[str, tuple[float, float]]], count: int) -> str:
    rows: list[list[str]] = []
    for name, steps in found.items():
        base = steps["ase"]
        for i, (step, label) in enumerate((TIMED | PARTS).items()):
            cpu, wall = steps[step]
            ratios = [f"{base[0] / cpu:.2f}", f"{base[1] / wall:.2f}"] if step in TIMED else ["", ""]
            rows.append([name if i == 0 else "", label, f"{cpu * 1e3:.0f}", f"{wall * 1e3:.0f}", *ratios])
    sizes = sorted(len(atoms) for atoms in structures(count))
    text = f"{count} crystals of {sizes[0]} to {sizes[-1]} atoms; energy, forces and stress; one thread\n"
    return text + table(["model", "", "cpu ms", "wall ms", "x cpu", "x wall"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="times each has its turn")
    parser.add_argument("--only", default=",".join(LIBRARIES), help=f"of {', '.join(LIBRARIES)}")
    parser.add_argument(
        "--channels", type=int, default=128, help="of MACE; the small foundation model has 128"
    )
    parser.add_argument("--quick", action="store_true", help="few structures, a tiny MACE, one round")
    given = parser.parse_args()
    count, rounds = (4, 1) if given.quick else (COUNT, given.rounds)
    MACE.channels = 8 if given.quick else given.channels
    warnings.filterwarnings("ignore")

    found: dict[str, dict[str, tuple[float, float]]] = {}
    goals: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in given.only.split(","):
            with contextlib.redirect_stdout(io.StringIO()):  # the libraries greet
                library = LIBRARIES[name](Path(folder))
                found[name] = steps = asyncio.run(measure(library, count, rounds))
            for step in ("concurrent", "many"):
                title = f"{name}: {TIMED[step]} over the {TIMED['ase']}, cpu"
                goals.append(goal(title, steps["ase"][0] / steps[step][0], 3.0, "times", least=True))
    content = {
        name: {step: {"cpu_s": cpu, "wall_s": wall} for step, (cpu, wall) in steps.items()}
        for name, steps in found.items()
    }
    report("graphs", describe(found, count), goals, content)


if __name__ == "__main__":
    main()
