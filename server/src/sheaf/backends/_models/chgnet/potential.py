"""A loaded CHGNet as a potential, and where its weights come from."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import chgnet
import torch
from chgnet import model as _model

from sheaf.backends._families.atoms.neighbors import Pairs
from sheaf.backends._families.atoms.potential import Potential, collect
from sheaf.backends._families.atoms.structures import Properties, Structure
from sheaf.backends._models.chgnet.graphs import join_graphs
from sheaf.backends._models.chgnet.network import Network

_library: Any = _model
_torch: Any = torch

_MOLECULE = (
    "The model was trained on crystals alone: what it says of a structure that does not repeat is a guess."
)


#: Po, At, Rn, Fr and Ra, which are in none of the data that the shipped models were trained on.
_UNSEEN = frozenset(range(84, 89))
_NOTHING = 1e-6


class CHGNet(Potential):
    """CHGNet on one device.

    Args:
        model: the library's `CHGNet`.
        unseen: elements that it has weights for and was not trained on.
    """

    def __init__(self, model: Any, unseen: frozenset[int] = frozenset()) -> None:
        self.cutoff = float(model.graph_converter.atom_graph_cutoff)
        known = set(range(1, model.atom_embedding.embedding.num_embeddings + 1)) - unseen
        if model.composition_model is not None:
            reference = model.composition_model.fc.weight[0].tolist()
            # A fit gives nothing to an element that it never met.
            known = {number for number in known if abs(reference[number - 1]) > _NOTHING}
        self.elements = frozenset(known)
        self._angle_cutoff = float(model.graph_converter.bond_graph_cutoff)
        self._network = Network(model)

    def evaluate(
        self, structures: Sequence[Structure], pairs: Sequence[Pairs], *, gradient: bool
    ) -> list[Properties]:
        graphs = join_graphs(structures, pairs, self._angle_cutoff)
        energies, forces, by_strain = self._network.properties(graphs, gradient=gradient)
        return collect(
            structures,
            energies.numpy(),
            None if forces is None else forces.numpy(),
            None if by_strain is None else by_strain.numpy(),
            [
                self._warnings(structure, lonely)
                for structure, lonely in zip(structures, graphs.lonely, strict=True)
            ],
        )

    def _warnings(self, structure: Structure, lonely: int) -> tuple[str, ...]:
        said: tuple[str, ...] = () if structure.periodic else (_MOLECULE,)
        if lonely:
            atoms = "1 atom has" if lonely == 1 else f"{lonely} atoms have"
            said = (*said, f"{atoms} no neighbour within {self.cutoff:g} Å, where the model feels no force.")
        return said


def load_chgnet(model_id: str, *, device: str, dtype: Any) -> CHGNet:
    """The model of a name that the library ships (`0.3.0`, `r2scan`, `0.2.0`) or of a checkpoint's path.

    Raises `ValueError` for a dtype there is not, `OSError` where there is no checkpoint or where it holds
    more than tensors and plain values.
    """
    if dtype not in {torch.float32, torch.float64}:
        raise ValueError(f"dtype must be float32 or float64, not {str(dtype).removeprefix('torch.')}")
    path, options, unseen = _find(model_id)
    # The library draws numbers for weights that it then overwrites.
    with _torch.random.fork_rng(devices=[]):
        model = _library.CHGNet.from_dict(_read(path), **options)
    return CHGNet(model.to(device=device, dtype=dtype).eval().requires_grad_(requires_grad=False), unseen)


def _find(model_id: str) -> tuple[Path, dict[str, Any], frozenset[int]]:
    """Where the checkpoint lies, the settings that the library gives to its own, and what they lack."""
    if Path(model_id).is_file():
        return Path(model_id), {}, frozenset()
    shipped = (Path(chgnet.__file__).parent / "pretrained").glob("*/*.pth.tar")
    found = {path.parent.name: path for path in shipped}
    if model_id not in found:
        names = ", ".join(sorted(found))
        raise OSError(f"{model_id!r} is neither the path of a checkpoint nor a model of chgnet's: {names}")
    return found[model_id], {"version": model_id, "mlp_out_bias": model_id == "0.2.0"}, _UNSEEN


def _read(path: Path) -> dict[str, Any]:
    """The weights and settings in a checkpoint; the library's `from_file` would let it run code."""
    try:
        stored: Any = torch.load(path, map_location="cpu", weights_only=True)
        model: dict[str, Any] = stored["model"]
    except (RuntimeError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
        raise OSError(f"{path} is no checkpoint of CHGNet of tensors and plain values: {error}") from error
    return model
