"""MACE: energies, forces and stress of molecules and crystals, by equivariant message passing."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sheaf.backends._families.materials import MAX_COST, PASS_COST, PotentialBackend
from sheaf.backends._shared.loading import libraries_of
from sheaf.backends._shared.settings import one_of, torch_dtype
from sheaf.backends.info import BackendInfo, Weights
from sheaf.registry import register_backend

if TYPE_CHECKING:
    from sheaf.backends._families.atoms.potential import Potential


@register_backend("mace")
class MACEBackend(PotentialBackend):
    """Answers equal those of the library's calculator for ASE for each structure alone.

    Args:
        model_id: the name of a released model as the library's `mace_mp` has it (`small`, `medium`, `mpa-0`
            …), which is downloaded once; the folder of a converted model (`convert`); or the path of a file
            as the library writes it. `model` is the older spelling.
        device: `cpu`, `cuda`, `cuda:1` …
        dtype: `float32` or `float64`; `default_dtype` is the older spelling.
        trust_pickle: whether a file may run the code in it as it is read. Without it files are read as data,
            which the models of the class `ScaleShiftMACE` can be.
        head: which head of a model of several speaks; the one named `default` where none is named.
        dispersion: whether D3 is added, by torch-dftd.
        pass_cost: most neighbours of all atoms in one pass through the network.
        max_cost: most neighbours of all atoms of one structure; a larger one is refused.
    """

    info: ClassVar[BackendInfo | None] = BackendInfo(
        title="MACE",
        extra="mace",
        libraries=("torch", "mace", "ase", "safetensors"),
        weights=(
            Weights(
                models=("omat-0", "small-omat-0", "medium-omat-0", "matpes-pbe-0", "mace-matpes-*-0", "mh-?"),
                license="ASL",
                card="https://github.com/ACEsuit/mace-foundations",
                restriction="The Academic Software License allows no commercial use.",
            ),
            Weights(
                models=(
                    "small",
                    "medium",
                    "large",
                    "small-0b*",
                    "medium-0b*",
                    "large-0b*",
                    "mpa-0",
                    "medium-mpa-0",
                ),
                license="MIT",
                card="https://github.com/ACEsuit/mace-foundations",
            ),
        ),
        papers=("https://arxiv.org/abs/2206.07697", "https://arxiv.org/abs/2401.00096"),
    )
    trusted_settings: ClassVar[frozenset[str]] = frozenset({"trust_pickle"})

    def __init__(
        self,
        model_id: str | Path | None = None,
        *,
        device: str = "cpu",
        dtype: Any = None,
        trust_pickle: bool = False,
        head: str | None = None,
        dispersion: bool = False,
        pass_cost: float = PASS_COST,
        max_cost: float = MAX_COST,
        model: str | Path | None = None,
        default_dtype: Any = None,
    ) -> None:
        super().__init__(pass_cost=pass_cost, max_cost=max_cost)
        self.model_id = one_of("model_id", model_id, "model", model, None)
        self.device = device
        self.dtype = one_of("dtype", dtype, "default_dtype", default_dtype, "float32")
        self.trust_pickle = trust_pickle
        self.head = head
        self.dispersion = dispersion

    def load(self) -> None:
        """Load the model.

        Raises `ModuleNotFoundError` where a library is missing, `OSError` where the model is, and
        `ValueError` for a pickle that cannot be read without trust, and a model, head or dtype that is not
        served.
        """
        if self.model_id is None:
            raise ValueError(
                "mace needs model_id: the name of a released model such as medium, or the path of one"
            )
        with libraries_of(self):
            import torch

            import_module("ase")  # which moves atoms later
            from sheaf.backends._models.mace.checkpoint import read_model
            from sheaf.backends._models.mace.layers import lighten
            from sheaf.backends._models.mace.potential import MACE
            from sheaf.backends._models.mace.released import fetch, released_names
        dtype = torch_dtype(self.dtype)
        if dtype not in {torch.float32, torch.float64}:
            raise ValueError(f"dtype must be float32 or float64, not {self.dtype}")
        path = Path(self.model_id)
        if not path.exists() and str(self.model_id) in released_names():
            path = fetch(str(self.model_id))
        model = read_model(path, trust_pickle=self.trust_pickle)
        potential: Potential = MACE(lighten(model.to(device=self.device, dtype=dtype)), head=self.head)
        if self.dispersion:
            with libraries_of(self, "mace-dispersion"):
                from sheaf.backends._models.mace.dispersion import Dispersed
            potential = Dispersed(potential, device=self.device, dtype=dtype)
        self.serve(potential)


def convert(file: str | Path, folder: str | Path) -> None:
    """Write the model in a file of the library's, a pickle, to a folder of settings and weights.

    Reading the file runs whatever code it holds: it must be from a source you trust. The model rebuilt from
    the folder is compared with the file's, energy and forces, before anything is written.

    Args:
        file: such as `mace-mpa-0-medium.model`.
        folder: where `config.json` and `model.safetensors` go.

    Raises:
        ValueError: The model is of a kind that cannot be rebuilt from its settings.
    """
    from sheaf.backends._models.mace.checkpoint import read_model, write_model

    write_model(read_model(Path(file), trust_pickle=True), Path(folder))
