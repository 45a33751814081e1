"""Small diffusion checkpoints with LoRA files beside them, and what the library draws with each alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sheaf.backends.flux import FluxBackend
from sheaf.backends.sdxl import SDXLBackend
from sheaf.lora import ActiveAdapters, LoRAAdapter, LoRAConfig
from sheaf.spec import ModelSpec
from tests.backends.diffusion.adapter_files import STANDARD, as_kohya, kohya_flux, make_adapter
from tests.backends.diffusion.diffusion_cases import TEXT_TOKENS, Pixels, call, pipeline_of

FAMILIES = ["flux", "sdxl"]
PIPELINE = {"flux": "FluxPipeline", "sdxl": "StableDiffusionXLPipeline"}
#: Rank, alpha, and whether the text encoders are trained too.
ADAPTERS: dict[str, tuple[int, int, bool]] = {
    "sketch": (4, 8, False),
    "ink": (2, 2, False),
    "oil": (4, 4, False),
    "style": (3, 6, True),
}
SETTINGS: dict[str, dict[str, Any]] = {
    "flux": {"device": "cpu", "dtype": "float32", "max_sequence_length": TEXT_TOKENS},
    "sdxl": {"device": "cpu", "dtype": "float32"},
}


class Recording:
    """Keeps the pixels of each answer as they were before encoding, and the rows of each forward."""

    drawn: dict[Any, Pixels]
    forwards: list[list[ActiveAdapters]]

    def load(self) -> None:
        super().load()  # type: ignore[misc]
        self.drawn, self.forwards = {}, []

    def answer(self, request: Any, pixels: Pixels, *rest: Any) -> Any:
        self.drawn[request.request_id] = pixels
        return super().answer(request, pixels, *rest)  # type: ignore[misc]

    def forward(self, questions: Any) -> Any:
        self.forwards.append([question.adapters for question in questions])
        return super().forward(questions)  # type: ignore[misc]


class RecordingFlux(Recording, FluxBackend):
    pass


class RecordingSDXL(Recording, SDXLBackend):
    pass


class GroupedFlux(RecordingFlux):
    """A backend whose library could not mix adapters in one batch."""

    mixes_adapters = False


class Studio:
    """One family's checkpoint, its LoRA files, and the library's own pipeline that holds them all."""

    def __init__(self, family: str, base: str, folder: Path) -> None:
        self.family = family
        self.base = base
        self.files = folder / f"{family}-adapters"
        made = self.pipeline()
        for seed, (name, (rank, alpha, text)) in enumerate(ADAPTERS.items()):
            make_adapter(self.files / name, made, seed=seed, rank=rank, alpha=alpha, text=text)
        kohya = self.files / "kohya" / "any_name.safetensors"
        if family == "flux":
            kohya_flux(kohya, width=32, blocks=1, seed=9)
        else:
            as_kohya(self.files / "style" / STANDARD, kohya, alpha=2.0)
        self._library = self.pipeline()
        for name in self.names:
            file = self.file(name)
            self._library.load_lora_weights(str(file.parent), weight_name=file.name, adapter_name=name)

    @property
    def names(self) -> list[str]:
        return [*ADAPTERS, "kohya"]

    def file(self, name: str) -> Path:
        (file,) = (self.files / name).glob("*.safetensors")
        return file

    def pipeline(self) -> Any:
        """The library's pipeline, without adapters."""
        return pipeline_of(PIPELINE[self.family], self.base)

    def alone(self, request: Any, active: ActiveAdapters) -> Pixels:
        """What the library draws for one request with these adapters set, and no others."""
        if active:
            self._library.enable_lora()
            self._library.set_adapters([name for name, _ in active], [weight for _, weight in active])
        else:
            self._library.disable_lora()
        pixels: Pixels = call(self._library, request)
        return pixels

    def config(self, *names: str, **fields: Any) -> LoRAConfig:
        """These adapters (all, where none is named), each with a weight of its own."""
        chosen = names or tuple(self.names)
        declared = {name: LoRAAdapter(source=name, weight=self.weight(name)) for name in chosen}
        return LoRAConfig(**{"adapters": declared, "root": self.files, **fields})

    def weight(self, name: str) -> float:
        """The weight that an adapter is declared with."""
        return 0.5 + 0.125 * self.names.index(name)

    def spec(
        self, backend: type[Any] | None = None, lora: LoRAConfig | None = None, **fields: Any
    ) -> ModelSpec:
        recording: Any = {"flux": RecordingFlux, "sdxl": RecordingSDXL}[self.family]
        settings = {"model_id": self.base, **SETTINGS[self.family]}
        given = {"name": "m", "backend_cls": backend or recording, "backend_kwargs": settings}
        return ModelSpec.model_validate({**given, "lora": lora or self.config(), **fields})
