"""MACE models as files: settings in JSON and weights in safetensors, and the pickles that the library writes.

A pickle of a whole module may run code as it is read. Here it is read as data, and the model rebuilt from its
settings and weights; only what cannot be rebuilt needs to be trusted. `convert` turns a file into a folder.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import torch as _safetensors

from sheaf.backends._models.mace.inert import Inert, read_inert
from sheaf.backends._models.mace.library import mace
from sheaf.backends._models.mace.released import released_names
from sheaf.backends._shared.loading import check_weights

_torch: Any = torch
_files: Any = _safetensors
_modules: Any = mace("mace.modules")
_tools: Any = mace("mace.tools.scripts_utils")
_o3: Any = mace("e3nn.o3")

CONFIG, WEIGHTS = "config.json", "model.safetensors"
_FORMAT = "mace-settings-1"
_IRREPS = ("hidden_irreps", "MLP_irreps", "edge_irreps")
_CLASSES = {
    "interaction_cls": "interaction_classes",
    "interaction_cls_first": "interaction_classes",
    "readout_cls": "readout_classes",
}
#: Settings of the library that have no meaning for energies, or are of accelerators that are not there.
_LEFT_OUT = {"cueq_config", "oeq_config"}


def read_model(path: Path, *, trust_pickle: bool) -> Any:
    """The library's module, on the CPU in evaluation mode.

    Raises `OSError` where there is no model, `ValueError` for a pickle that cannot be read as data and is not
    trusted, or a model that needs more than atoms.
    """
    if path.is_dir():
        model = _read_folder(path)
    elif path.is_file():
        model = torch.load(path, map_location="cpu", weights_only=False) if trust_pickle else _rebuild(path)
    else:
        raise OSError(
            f"{path} is neither a folder nor a file on this machine, nor the name of a released model: "
            f"{', '.join(released_names())}"
        )
    if not isinstance(model, _modules.MACE) or hasattr(model, "joint_embedding"):
        raise ValueError(f"{path} holds a {type(model).__name__} that gives no energy from atoms alone")
    return model.eval().requires_grad_(requires_grad=False)


def _rebuild(path: Path) -> Any:
    """The model in a pickle, from its settings and weights: no code of the file runs."""
    try:
        held = read_inert(path)
        if type(held).__name__ != "ScaleShiftMACE":
            raise ValueError(
                f"a {type(held).__name__} cannot be rebuilt from its settings: ScaleShiftMACE can"
            )
        config, weights = _settings(held), dict(held.tensors())
        model = _build(config, weights["r_max"].dtype)
        _fill(model, weights)
        if (again := _settings(model)) != config:
            apart = sorted(name for name in config if again.get(name) != config[name])
            raise ValueError(f"its settings {', '.join(apart)} are not those of a model rebuilt from them")
    except (ValueError, TypeError, KeyError, AttributeError, LookupError, RuntimeError) as error:
        raise ValueError(
            f"{path} is a pickle that cannot be read as data ({error}), and reading it otherwise runs "
            "whatever code it holds: where you trust it, give trust_pickle=True, or convert it once by "
            "sheaf.backends.mace.convert(file, folder)"
        ) from error
    return model


def _fill(model: Any, weights: dict[str, torch.Tensor]) -> None:
    """Put weights into a model of random ones; raises `ValueError` where one lacks or has another shape.

    Constants that belong to the code which e3nn generates are in no file; they are the model's own.
    """
    wanted: dict[str, torch.Tensor] = model.state_dict()
    trained = {name for name, _ in model.named_parameters()}
    lacking = [
        name for name in wanted if name not in weights and (name in trained or "._compiled_" not in name)
    ]
    unknown = [name for name in weights if name not in wanted]
    odd = [name for name in weights.keys() & wanted.keys() if weights[name].shape != wanted[name].shape]
    for names, fault in ((lacking, "lacks"), (unknown, "has besides"), (odd, "has of another shape")):
        if names:
            raise ValueError(f"it {fault} the weights {', '.join(sorted(names)[:3])}")
    model.load_state_dict(weights, strict=False)


def _settings(model: Any) -> dict[str, Any]:
    """What a model is built from, as JSON has it; of the library's module, or of one read as data."""
    settings = _tools.extract_config_mace_model(model)
    if "error" in settings:
        raise ValueError(settings["error"])
    return {name: _plain(name, value) for name, value in settings.items() if name not in _LEFT_OUT}


def write_model(model: Any, folder: Path) -> None:
    """Write settings and weights of the library's module to a folder.

    Raises `ValueError` for a model that cannot be rebuilt from them to the last bit that matters.
    """
    if type(model) is not _modules.ScaleShiftMACE:
        raise ValueError(f"a {type(model).__name__} cannot be converted: ScaleShiftMACE can")
    config = _settings(model)
    rebuilt = _build(config, next(model.parameters()).dtype)
    rebuilt.load_state_dict(model.state_dict(), strict=False)
    _check_equal(model, rebuilt)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"format": _FORMAT, "model": config}, indent=1)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")
    weights = {
        name: value.detach().cpu().contiguous().clone() for name, value in rebuilt.state_dict().items()
    }
    _files.save_file(weights, folder / WEIGHTS)


def _read_folder(folder: Path) -> Any:
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise OSError(f"{folder} lacks {name}")
    content: Any = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    if content.get("format") != _FORMAT:
        raise ValueError(f"{folder / CONFIG} does not say the format {_FORMAT}")
    weights: dict[str, torch.Tensor] = _files.load_file(folder / WEIGHTS)
    dtype = weights["r_max"].dtype if "r_max" in weights else torch.float32
    model = _build(content["model"], dtype)
    check_weights(folder, set(model.state_dict()) - set(weights))
    model.load_state_dict(weights)
    return model


def _build(config: dict[str, Any], dtype: torch.dtype) -> Any:
    """A module of these settings, with weights drawn at random that the caller replaces."""
    settings = dict(config)
    for name, table in _CLASSES.items():
        settings[name] = getattr(_modules, table)[settings[name]]
    for name in _IRREPS:
        if settings.get(name) is not None:
            settings[name] = _o3.Irreps(settings[name])
    settings["gate"] = _modules.gate_dict[settings["gate"]]
    settings["atomic_energies"] = np.array(settings["atomic_energies"])
    with _torch.random.fork_rng(devices=[]):
        return _modules.ScaleShiftMACE(**settings).to(dtype).eval()


def _plain(name: str, value: Any) -> Any:
    """A setting as JSON has it."""
    if name in _CLASSES:
        table: dict[str, Any] = getattr(_modules, _CLASSES[name])
        if issubclass(value, Inert):  # stands for the class that it is called after
            return next(key for key, cls in table.items() if cls.__name__ == value.__name__)
        return next(key for key, cls in table.items() if cls is value)
    if name == "gate":
        # By what it does: the library wraps it on its way into the model.
        at = torch.linspace(-2, 2, 9)
        if value is None:
            return "None"
        return next(
            key for key, gate in _modules.gate_dict.items() if gate and torch.equal(gate(at), value(at))
        )
    if name in _IRREPS:
        return None if value is None else str(value)
    return value.tolist() if hasattr(value, "tolist") else value


def _check_equal(model: Any, rebuilt: Any) -> None:
    from sheaf.backends._families.atoms.neighbors import find_pairs
    from sheaf.backends._families.atoms.structures import Structure
    from sheaf.backends._models.mace.potential import MACE

    numbers = model.atomic_numbers.cpu().numpy().astype(np.int64)
    # Every element once, on a grid that is a little out of order.
    side = int(np.ceil(len(numbers) ** (1 / 3)))
    grid = np.stack(np.unravel_index(np.arange(len(numbers)), (side, side, side)), axis=1) * 1.7
    positions = grid + np.random.default_rng(0).uniform(-0.2, 0.2, grid.shape)
    none = np.zeros(3, dtype=np.bool_)
    probe = Structure(numbers, positions, np.zeros((3, 3)), none, has_cell=False)
    pairs = [find_pairs(probe, float(model.r_max))]
    for head in getattr(model, "heads", [None]):
        (old,), (new,) = (
            MACE(m.eval(), head=head).evaluate([probe], pairs, gradient=True) for m in (model, rebuilt)
        )
        forces, again = np.asarray(old.forces), np.asarray(new.forces)
        apart = max(
            abs(old.energy - new.energy) / (abs(old.energy) + 1.0),
            float(np.abs(forces - again).max() / (np.abs(forces).max() + 1.0)),
        )
        if not apart < 1e-5:
            raise ValueError(f"the model cannot be rebuilt from its settings: it differs by {apart:g}")
