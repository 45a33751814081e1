"""CHGNet: energies, forces and stress of crystals; the trained weights come with the library."""

from __future__ import annotations

from typing import Any, ClassVar

from sheaf.backends._families.materials import MAX_COST, PASS_COST, PotentialBackend
from sheaf.backends._shared.loading import import_libraries, libraries_of
from sheaf.backends._shared.settings import one_of, torch_dtype
from sheaf.backends.info import BackendInfo, Weights
from sheaf.registry import register_backend


@register_backend("chgnet")
class CHGNetBackend(PotentialBackend):
    """Answers equal those of the library's calculator for ASE for each structure alone.

    Args:
        model_id: `0.3.0`, `r2scan` or `0.2.0`, which come with the library, or the path of a checkpoint in
            its format, of which tensors and plain values alone are read; `model` is the older spelling.
        device: `cpu`, `cuda`, `cuda:1` …
        dtype: `float32`, or `float64`, which the library has not; `default_dtype` is the older spelling.
        pass_cost: most neighbours of all atoms in one pass through the network.
        max_cost: most neighbours of all atoms of one structure; a larger one is refused.
    """

    info: ClassVar[BackendInfo | None] = BackendInfo(
        title="CHGNet",
        extra="chgnet",
        libraries=("torch", "chgnet", "ase", "pymatgen"),
        default_model="0.3.0",
        memory_mb=2,
        weights=(
            Weights(
                models=("0.3.0", "r2scan", "0.2.0"),
                license="Modified BSD",
                card="https://github.com/CederGroupHub/chgnet",
            ),
        ),
        papers=("https://doi.org/10.1038/s42256-023-00716-3",),
    )

    def __init__(
        self,
        model_id: str | None = None,
        *,
        device: str = "cpu",
        dtype: Any = None,
        pass_cost: float = PASS_COST,
        max_cost: float = MAX_COST,
        model: str | None = None,
        default_dtype: Any = None,
    ) -> None:
        super().__init__(pass_cost=pass_cost, max_cost=max_cost)
        self.model_id = str(one_of("model_id", model_id, "model", model, "0.3.0"))
        self.device = device
        self.dtype = one_of("dtype", dtype, "default_dtype", default_dtype, "float32")

    def load(self) -> None:
        """Load the checkpoint.

        Raises `ModuleNotFoundError` where the library is missing, `OSError` where the checkpoint is, and
        `ValueError` for a dtype there is not.
        """
        import_libraries(self)  # ASE too, which moves atoms later
        with libraries_of(self):
            from sheaf.backends._models.chgnet.potential import load_chgnet
        self.serve(load_chgnet(self.model_id, device=self.device, dtype=torch_dtype(self.dtype)))
