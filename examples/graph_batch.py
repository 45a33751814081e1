"""Many structures in one call: CHGNet finds the lattice constants of elements, with no download.

Each element's cell is computed at nine sizes; all cells go through the network together. The weights come
with the library: pip install ./sdk "./server[chgnet]"
"""

from __future__ import annotations

import numpy as np
from ase.build import bulk

from sheaf_client import Sheaf

ELEMENTS = {"Si": 5.43, "Cu": 3.61, "Fe": 2.87, "Al": 4.05}  # measured, in Å
SCALES = np.linspace(0.96, 1.04, 9)


def main() -> None:
    cells = [bulk(symbol, a=a * scale) for symbol, a in ELEMENTS.items() for scale in SCALES]
    with Sheaf.local(["chgnet"]) as client:
        answer = client.materials.compute(model="chgnet", structures=cells, compute_stress=True)
        energies = np.reshape([result.energy for result in answer.results or []], (len(ELEMENTS), -1))
        print(f"{len(cells)} structures in {answer.metadata.usage.compute_seconds:.2f} s")
        for (symbol, measured), curve in zip(ELEMENTS.items(), energies, strict=True):
            a, b, _ = np.polyfit(SCALES, curve, 2)
            print(f"{symbol}: {-b / 2 / a * measured:.2f} Å, measured {measured:.2f} Å")

        salt = bulk("NaCl", "rocksalt", a=5.4)
        relaxed = client.materials.relax(salt, model="chgnet", relax_cell=True, optimizer="lbfgs")
        print(f"NaCl: {relaxed.to_ase(salt).get_volume():.1f} Å³ after {relaxed.n_steps} steps")


if __name__ == "__main__":
    main()
