"""Serves pipelines of diffusers with step batching: each request runs the library's own loop, on its own.

A request has a copy of the pipeline with a scheduler of its own and a stand-in for the denoiser; whatever the
loop asks of the denoiser is stacked with what the others ask. Nothing here knows a family of models.
"""

from __future__ import annotations

import copy
import inspect
import secrets
from abc import abstractmethod
from collections.abc import Hashable, Iterable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeAlias, TypedDict, cast
from weakref import WeakKeyDictionary

from sheaf.api.diffusion import DiffusionRequest, DiffusionResponse, ImageProgress
from sheaf.api.multimodal_generation import MultimodalGenerationResponse
from sheaf.backends._families.diffusers.family import DenoiserFacts, Family, Guidance
from sheaf.backends._families.diffusers.numbers import Request, check_drawn, check_weights
from sheaf.backends._families.diffusers.quiet import quiet
from sheaf.backends._families.diffusers.seams import AdapterSeam, NoAdapters
from sheaf.backends._families.diffusers.text import CHATTER, encoding
from sheaf.backends._shared.loading import free_device, libraries_of, loaded
from sheaf.backends._shared.refusals import attempt, refuse
from sheaf.backends._shared.settings import one_of
from sheaf.backends.base import ModelBackend, respond
from sheaf.backends.loops import LibraryLoop, LoopBackend
from sheaf_client.contracts.events import ProgressEvent

if TYPE_CHECKING:
    from sheaf.backends._families.diffusers.stacking import Question

Response: TypeAlias = DiffusionResponse | MultimodalGenerationResponse
Mode: TypeAlias = Literal["text2img", "img2img", "inpaint"]
DrawingLoop: TypeAlias = "LibraryLoop[Question, Any, Response]"


class Settings(TypedDict, total=False):
    """The settings that all families have in common."""

    device: str | None
    dtype: Any
    revision: str | None
    variant: str | None
    scheduler: str | None
    scheduler_kwargs: Mapping[str, Any] | None
    enable_model_cpu_offload: bool
    torch_dtype: Any


def _alternatives(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


#: Seeds that are drawn: short ones are easier to send again.
_SEEDS = 2**32


class DiffusersBackend(LoopBackend[Request, Response, "Question", Any]):
    """Draws what the pipeline gives for each request alone, whatever shares its steps.

    Image k of a request with seed s is the image that the request with seed s + k draws alone.
    """

    takes_adapters: ClassVar[bool] = True
    mixes_adapters: ClassVar[bool] = True

    family: ClassVar[Family]
    #: The modes of this class; the settings choose the class by them.
    modes: ClassVar[tuple[str, ...]] = ("text2img",)

    def __new__(cls, *_: Any, **settings: Any) -> Self:
        made: Self = object.__new__(cast("Any", cls.for_settings(settings)))
        return made

    @classmethod
    def kinds(cls) -> tuple[type[DiffusersBackend], ...]:
        """The classes that settings may choose: this one first, then those of the family's other modes."""
        return (cls,)

    @classmethod
    def for_settings(cls, settings: Mapping[str, Any], model_type: str = "") -> type[ModelBackend]:
        """The class for the mode that is named; where none is, that for the contract."""
        kinds, mode = cls.kinds(), settings.get("mode")
        if mode is None:
            return next((kind for kind in kinds if kind.model_type == model_type), cls)
        for kind in kinds:
            if mode in kind.modes:
                return kind
        modes = [mode for kind in kinds for mode in kind.modes]
        raise ValueError(f"mode must be {_alternatives(modes)}, not {mode!r}")

    def __init__(
        self,
        model_id: str,
        *,
        mode: Mode,
        device: str | None = None,
        dtype: Any = None,
        revision: str | None = None,
        variant: str | None = None,
        scheduler: str | None = None,
        scheduler_kwargs: Mapping[str, Any] | None = None,
        enable_model_cpu_offload: bool = False,
        torch_dtype: Any = None,
    ) -> None:
        if mode not in self.modes:
            raise ValueError(f"mode must be {_alternatives(self.modes)}, not {mode!r}")
        self.model_id = str(model_id)
        self.mode: Mode = mode
        self.device = device or "cuda"
        self.dtype = one_of("dtype", dtype, "torch_dtype", torch_dtype, self.family.default_dtype)
        self.revision = revision
        self.variant = variant
        self.scheduler = scheduler
        self.scheduler_kwargs = scheduler_kwargs
        self.enable_model_cpu_offload = enable_model_cpu_offload
        self._pipelines: dict[str, Any] = {}
        self._adapters: AdapterSeam = NoAdapters()
        #: The latents of requests whose latest step is to be shown.
        self._shown: WeakKeyDictionary[DrawingLoop, Any] = WeakKeyDictionary()

    # What a family says about its models.

    @abstractmethod
    def guide(self, request: Request) -> Guidance:
        """How `guidance_scale` and `negative_prompt` are put to the pipeline."""

    @abstractmethod
    def steps_of(self, steps: int, strength: float) -> int:
        """How many of so many steps the pipeline takes for an image of which so much is given up."""

    @abstractmethod
    def read_facts(self) -> DenoiserFacts:
        """What is known of the loaded checkpoint."""

    def check_checkpoint(self) -> None:
        """Raise `ValueError` for a loaded checkpoint that the pipelines of this mode cannot run."""

    def extra_arguments(self) -> dict[str, Any]:
        """Further keywords of every call of the pipeline."""
        return {}

    # What a mode says; that of images from text is here, those of images from images are in `redraw`.

    def pipeline_names(self) -> tuple[str, ...]:
        """The pipelines that this mode needs, by the names of their classes."""
        return (self.family.text2img,)

    def pipeline_for(self, request: Request) -> Any:  # noqa: ARG002 - for those who override it
        """The pipeline that a request runs in."""
        return self.pipeline

    def size(self, request: Request) -> tuple[int, int]:
        """Width and height of the images that a request draws, in pixels."""
        assert isinstance(request, DiffusionRequest)  # noqa: S101 - the spec let no other in
        return request.width, request.height

    def denoising_steps(self, request: Request) -> int:
        """How many steps the pipeline takes; 0 where it would draw nothing new."""
        return request.num_inference_steps

    def pictures(self, request: Request) -> dict[str, Any]:  # noqa: ARG002 - for those who override it
        """The images that a request brings, by the keywords of the pipeline."""
        return {}

    # The life of the model.

    def load(self) -> None:
        """Load the checkpoint.

        Raises `ModuleNotFoundError` where the library is missing, `OSError` where a file is, and
        `ValueError` where the checkpoint is of another family or lacks weights.
        """
        with libraries_of(self):
            from sheaf.backends._families.diffusers.loading import Source, load_pipelines

            import_module("accelerate")  # without it the library loads otherwise, and says so in a log line
            if self.lora is not None:
                import_module("peft")  # the library's loaders of adapters need it
        source = Source(
            self.model_id,
            self.device,
            self.dtype,
            self.revision,
            self.variant,
            self.enable_model_cpu_offload,
            self.scheduler,
            self.scheduler_kwargs,
        )
        self._pipelines = load_pipelines(source, self.family, self.pipeline_names())
        self.check_checkpoint()
        self.facts = self.read_facts()
        self._adapters = self.adapter_seam()

    def warm_up(self) -> None:
        self.predict(self.smallest())

    def smallest(self) -> Request:
        """A request that is quickly answered."""
        return DiffusionRequest(
            model_name="warm-up", prompt="a cat", height=64, width=64, num_inference_steps=1, seed=0
        )

    def adapter_seam(self) -> AdapterSeam:
        """What applies the adapters that the deployment declares to the loaded parts."""
        if self.lora is None:
            return NoAdapters()
        from sheaf.backends._families.diffusers.adapters import Adapters

        return Adapters(self.pipeline, self.lora)

    @property
    def pipeline(self) -> Any:
        """The first of the loaded pipelines; all have the same parts."""
        return loaded(next(iter(self._pipelines.values()), None))

    @property
    def known(self) -> DenoiserFacts:
        """What is known of the loaded checkpoint."""
        facts: DenoiserFacts | None = self.facts
        return loaded(facts)

    @property
    def denoiser(self) -> Any:
        """The part of the model that the steps call."""
        return getattr(self.pipeline, self.family.denoiser)

    def unload(self) -> None:
        self._pipelines, self._adapters, self.facts = {}, NoAdapters(), None
        self.free_memory()

    def free_memory(self) -> None:
        free_device(self.device)

    # Requests.

    def check(self, request: Request) -> None:
        self.check_numbers(request)
        width, height = self.size(request)
        for name, side in (("width", width), ("height", height)):
            if side % self.family.multiple:
                message = f"This model draws sides of multiples of {self.family.multiple} pixels, not {side}."
                raise refuse(f"/{name}", message, "out_of_range")

    def check_numbers(self, request: Request) -> None:
        """Refuse numbers with which no model, or not this one, draws anything."""
        check_weights(request)

    def batch_key(self, request: Request) -> Hashable:
        """Images of one size are drawn in the same forwards."""
        return self.size(request)

    def cost(self, request: Request) -> float:
        """Megapixels in one forward."""
        width, height = self.size(request)
        return width * height / 1e6 * request.num_images * self.guide(request).rows

    def answer_size(self, request: Request) -> int:
        """Three bytes of each pixel: files shrink it as much as base64 makes of them."""
        width, height = self.size(request)
        return 3 * width * height * request.num_images

    def steps(self, request: Request) -> int:
        """Calls of the denoiser: what a step of the engine is."""
        return self.denoising_steps(request) * self.guide(request).calls

    def batch_predict(self, requests: Sequence[Request]) -> list[Response | Exception]:
        """Answer requests from the first step to the last, those of one size together."""
        answers: dict[int, Response | Exception] = {
            index: attempt(self.unchanged, request)
            for index, request in enumerate(requests)
            if not self.steps(request)
        }
        left = [index for index in range(len(requests)) if index not in answers]
        answers |= zip(left, super().batch_predict([requests[index] for index in left]), strict=True)
        return [answers[index] for index in range(len(requests))]

    def deterministic(self, request: Request) -> bool:
        """Whether the noise is given by a seed, or there is none because no step is taken."""
        return request.seed is not None or not self.denoising_steps(request)

    def unchanged(self, request: Request) -> Response:
        """The answer to a request that takes no step."""
        raise RuntimeError(f"a request of {request.num_inference_steps} steps takes none")

    def run(self, request: Request, loop: DrawingLoop) -> Response:
        guidance, adapters = self.guide(request), self.adapters_of(request)
        seed = secrets.randbelow(_SEEDS) if request.seed is None else request.seed
        warnings = list(guidance.warnings)
        texts = {"prompt": request.prompt}
        if guidance.arguments.get("negative_prompt"):
            texts["negative_prompt"] = request.negative_prompt
        shared = self.pipeline_for(request)
        pipeline = self._own(shared, loop, adapters)
        pipeline.encode_prompt = encoding(shared, self._adapters, adapters, texts, warnings)
        width, height = self.size(request)
        arguments = {
            "prompt": [request.prompt],
            "width": width,
            "height": height,
            "num_inference_steps": request.num_inference_steps,
            "num_images_per_prompt": request.num_images,
            **guidance.arguments,
            **self.pictures(request),
            **self.extra_arguments(),
        }
        known = inspect.signature(type(pipeline).__call__).parameters
        with self._adapters.held(adapters), quiet(*CHATTER):
            pixels = pipeline(
                **{name: value for name, value in arguments.items() if name in known},
                generator=_generators(seed, request.num_images),
                callback_on_step_end=self._teller(request, loop, guidance.calls),
                output_type="np",
            ).images
        return self.answer(request, pixels, seed, warnings)

    def answer(self, request: Request, pixels: Any, seed: int, warnings: Sequence[str]) -> Response:
        """The response with these pixels, float32 in 0…1 of shape (num_images, height, width, 3)."""
        from sheaf.backends._shared.images import encoded, to_pillow

        check_drawn(request, pixels)
        files = [encoded(image, request.output_format) for image in to_pillow(pixels)]
        kind: Any = (
            DiffusionResponse if isinstance(request, DiffusionRequest) else MultimodalGenerationResponse
        )
        response: Response = respond(
            request,
            kind,
            image=files[0],
            images=files if request.num_images > 1 else None,
            width=pixels.shape[2],
            height=pixels.shape[1],
            seed=seed,
            output_format=request.output_format,
            metadata={"warnings": list(warnings)},
        )
        return response

    def forward(self, questions: Sequence[Question]) -> Sequence[Any]:
        from sheaf.backends._families.diffusers.stacking import answer

        return answer(self.denoiser, questions, self._adapters)

    def progress(self, request: Request, state: DrawingLoop) -> ProgressEvent | None:
        event = super().progress(request, state)
        latents = self._shown.pop(state, None)
        if event is None or latents is None:
            return event
        from sheaf.backends._families.diffusers.previews import preview

        check_drawn(request, latents.float().cpu())
        width, height = self.size(request)
        picture = preview(self.pipeline_for(request), latents, height, width)
        return ImageProgress(step=event.step, total_steps=event.total_steps, preview=picture)

    def _own(self, pipeline: Any, loop: DrawingLoop, active: Any) -> Any:
        """A pipeline of one request's own: what a loop keeps on it (its schedule, flags) is nobody else's."""
        from sheaf.backends._families.diffusers.stacking import Asking, StandIn

        own: Any = copy.copy(pipeline)
        own_scheduler = pipeline.scheduler.__class__.from_config(pipeline.scheduler.config)
        stand_in = StandIn(self.denoiser, Asking(self.denoiser, self.family.shared, active), loop.ask)
        # Past the pipeline's own setter, which would write the classes into its configuration.
        own.__dict__ |= {"scheduler": own_scheduler, self.family.denoiser: stand_in}
        # The parts belong to all requests; one that ends must not move them off the device.
        own.maybe_free_model_hooks = lambda: None
        return own

    def _teller(self, request: Request, loop: DrawingLoop, calls: int) -> Any:
        """The pipeline's own callback: says how far the loop is."""

        def tell(pipeline: Any, index: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            done, total = index + 1, pipeline.num_timesteps
            loop.total = total * calls
            self._shown.pop(loop, None)
            if request.preview_interval and done % request.preview_interval == 0:
                self._shown[loop] = tensors["latents"]
            loop.tell(ImageProgress(step=done, total_steps=total))
            return tensors

        return tell


def _generators(seed: int, count: int) -> list[Any]:
    """A generator for each image; on the processor, so that a seed gives the same noise on every device."""
    import torch

    return [torch.Generator("cpu").manual_seed(seed + k) for k in range(count)]
