"""What the backends of protein language models share: residues as tokens, passes by length, loading.

A request holds sequences of any lengths, and so does a batch. All of them together are sorted by length and
cut into passes, so padding is small whoever sent what; a vector never depends on who shared its pass.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

from sheaf.api.molecular import MolecularRequest, MolecularResponse
from sheaf.api.protein_language import ProteinLanguageRequest, ProteinLanguageResponse
from sheaf.backends._shared.refusals import attempt, missing_library, refuse, torch_dtype
from sheaf.backends.base import ModelBackend
from sheaf.registry import name_of
from sheaf.scheduling.packing import cut_into_passes

if TYPE_CHECKING:
    import torch

AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"

_MASK = "<mask>"
_RESIDUES = re.compile(f"{_MASK}|.")
#: Most cells of one pass, and what a pass costs besides its cells, in cells (docs/backends/esm2.md).
_CPU_PASS, _CPU_OVERHEAD = 1024, 16
_DEVICE_PASS, _DEVICE_OVERHEAD = 16384, 2048


RequestT = TypeVar("RequestT", bound=MolecularRequest | ProteinLanguageRequest)
ResponseT = TypeVar("ResponseT", bound=MolecularResponse | ProteinLanguageResponse)


@dataclass(frozen=True, slots=True)
class Alphabet:
    """The tokens that a checkpoint has for residues, and how many of them it reads.

    Attributes:
        ids: Token of each residue in either case, and of `<mask>`.
        start: Token before a sequence.
        end: Token after it.
        pad: Token where there is nothing.
        max_tokens: Most tokens of one sequence, `start` and `end` included.
    """

    ids: Mapping[str, int]
    start: int
    end: int
    pad: int
    max_tokens: int

    def encode(self, sequence: str) -> list[int]:
        """Tokens of a sequence that passed `check`."""
        return [self.start, *(self.ids[residue] for residue in _RESIDUES.findall(sequence)), self.end]

    def check(self, sequences: Sequence[str]) -> None:
        """Raise `InvalidRequestError` for a sequence too long, or with a residue that has no token."""
        for index, sequence in enumerate(sequences):
            length, most = count_tokens(sequence) - 2, self.max_tokens - 2
            if length > most:
                message = f"The model reads {most:,} residues at most; this sequence has {length:,}."
                raise refuse(f"/sequences/{index}", message, "out_of_range")
            if unknown := set(sequence.replace(_MASK, "")) - self.ids.keys():
                residues = _RESIDUES.findall(sequence)
                place, residue = next((i, r) for i, r in enumerate(residues, 1) if r in unknown)
                message = f"The model has no token for {residue.upper()!r}, residue {place} of this sequence."
                raise refuse(f"/sequences/{index}", message)


def count_tokens(sequence: str) -> int:
    """Tokens of a sequence, those before and after it included."""
    return len(sequence) - sequence.count(_MASK) * (len(_MASK) - 1) + 2


class Pass(NamedTuple):
    """Sequences that go through the model together, padded to the longest.

    Attributes:
        members: Which of the sequences these are.
        lengths: Tokens of each, in the same order.
        inputs: `input_ids` and `attention_mask` of shape (rows, tokens), on the model's device.
    """

    members: list[int]
    lengths: list[int]
    inputs: dict[str, torch.Tensor]


class ProteinBackend(ModelBackend[RequestT, ResponseT]):
    """A protein language model of the transformers library; subclasses name its class and read its output.

    Args:
        model_id: Hub id, or the folder of a checkpoint in safetensors.
        device: `cpu`, `cuda`, `cuda:1` …, or `auto` to spread a large model over the devices there are.
        dtype: `float32`, `bfloat16`, `float16`, or `auto` for that of the checkpoint.
        revision: Branch, tag or commit on the hub.
        tokens_per_pass: Most tokens in one pass through the model, padding included; a longer sequence has
            a pass of its own. By default 1,024 on a CPU and 16,384 elsewhere.
        pass_overhead: What a pass costs besides its tokens, in tokens: a sequence is padded to a longer one
            only where that takes fewer. By default 16 on a CPU and 2,048 elsewhere.
    """

    padded: ClassVar[bool] = True

    #: Classes of transformers, how a checkpoint names them, and a file it must hold besides the weights.
    _model_class: ClassVar[str]
    _tokenizer_class: ClassVar[str]
    _architecture: ClassVar[str]
    _vocabulary: ClassVar[str | None] = None
    #: Options of the model's class, and beginnings of the names of weights that are not used.
    _options: ClassVar[Mapping[str, Any]] = {}
    _unused: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        model_id: str,
        *,
        device: str,
        dtype: Any,
        revision: str | None,
        tokens_per_pass: int | None,
        pass_overhead: float | None,
    ) -> None:
        for name, value, least in (
            ("tokens_per_pass", tokens_per_pass, 1),
            ("pass_overhead", pass_overhead, 0),
        ):
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, not {value}")
        self.model_id = str(model_id)
        self.device = device
        self.dtype = dtype
        self.revision = revision
        self.tokens_per_pass = tokens_per_pass
        self.pass_overhead = pass_overhead
        self._loaded: tuple[Any, Alphabet] | None = None

    @staticmethod
    @abstractmethod
    def _max_tokens(config: Any) -> int:
        """Most tokens of a sequence that a model of this configuration was made for."""

    def load(self) -> None:
        """Load the checkpoint.

        Raises `ModuleNotFoundError` where a library is missing, `OSError` where a file of the checkpoint is,
        and `ValueError` where it is of another model or lacks weights.
        """
        try:
            library: Any = import_module("transformers")
            files: Any = import_module("transformers.utils.hub")
            for name in ("torch", "accelerate"):
                import_module(name)
        except ModuleNotFoundError as error:
            raise missing_library(name_of(type(self)), "proteins", error) from error
        source: dict[str, Any] = {} if self.revision is None else {"revision": self.revision}
        config = library.AutoConfig.from_pretrained(self.model_id, trust_remote_code=False, **source)
        if config.model_type != self._architecture:
            raise ValueError(
                f"{self.model_id} is a checkpoint of {config.model_type}, not of {self._architecture}"
            )
        if self._vocabulary is not None:
            files.cached_file(self.model_id, self._vocabulary, **source)  # raises OSError with its name
        tokenizer = getattr(library, self._tokenizer_class).from_pretrained(self.model_id, **source)
        alphabet = _alphabet(self.model_id, tokenizer, self._max_tokens(config))
        model, found = getattr(library, self._model_class).from_pretrained(
            self.model_id,
            device_map=self.device,
            dtype=torch_dtype(self.dtype),
            use_safetensors=True,
            output_loading_info=True,
            **self._options,
            **source,
        )
        # The library fills what is missing with random numbers.
        if lacking := sorted(name for name in found["missing_keys"] if not name.startswith(self._unused)):
            more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
            raise ValueError(
                f"the checkpoint {self.model_id} lacks the weights {', '.join(lacking[:3])}{more}"
            )
        self._loaded = model.eval(), alphabet

    def unload(self) -> None:
        self._loaded = None

    @property
    def _model(self) -> Any:
        return self._parts[0]

    @property
    def _parts(self) -> tuple[Any, Alphabet]:
        if self._loaded is None:
            raise RuntimeError("load() has not been called")
        return self._loaded

    def check(self, request: RequestT) -> None:
        self._parts[1].check(request.sequences)

    def cost(self, request: RequestT) -> float:
        """Tokens of all sequences, those before and after each included."""
        return float(sum(map(count_tokens, request.sequences)))

    def padded_cost(self, costs: Sequence[float]) -> float:
        """Cells of the passes of a batch; the sequences of one request count as one of all their tokens."""
        lengths = [int(cost) for cost in costs]
        return float(sum(len(members) * lengths[members[0]] for members in self._cut(lengths)))

    def batch_predict(self, requests: Sequence[RequestT]) -> list[ResponseT | Exception]:
        """Answer requests of any mix; what `check` refuses gets its `InvalidRequestError` in place."""
        refused = [attempt(self.check, request) for request in requests]
        accepted = [request for request, error in zip(requests, refused, strict=True) if error is None]
        answers = iter(self._answers(accepted))
        return [next(answers) if error is None else error for error in refused]

    @abstractmethod
    def _answers(self, requests: Sequence[RequestT]) -> list[ResponseT | Exception]:
        """Answer requests that passed `check`."""

    def _passes(self, sequences: Sequence[str]) -> Iterator[Pass]:
        """All sequences in passes through the model, each sequence in one of them."""
        import torch

        model, alphabet = self._parts
        tokens = [alphabet.encode(sequence) for sequence in sequences]
        for members in self._cut([len(row) for row in tokens]):
            lengths = [len(tokens[i]) for i in members]
            rows = [tokens[i] + [alphabet.pad] * (lengths[0] - len(tokens[i])) for i in members]
            mask = torch.arange(lengths[0]) < torch.tensor(lengths)[:, None]
            inputs = {"input_ids": torch.tensor(rows), "attention_mask": mask.long()}
            yield Pass(members, lengths, {name: value.to(model.device) for name, value in inputs.items()})

    def _cut(self, lengths: Sequence[int]) -> list[list[int]]:
        on_cpu = self._model.device.type == "cpu"
        most, overhead = (_CPU_PASS, _CPU_OVERHEAD) if on_cpu else (_DEVICE_PASS, _DEVICE_OVERHEAD)
        return cut_into_passes(
            lengths,
            max_cells=most if self.tokens_per_pass is None else self.tokens_per_pass,
            overhead=overhead if self.pass_overhead is None else self.pass_overhead,
        )


def _alphabet(model_id: str, tokenizer: Any, max_tokens: int) -> Alphabet:
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    if lacking := sorted({*AMINO_ACIDS, _MASK} - vocabulary.keys()):
        raise ValueError(f"{model_id} is no model of proteins: it has no token for {', '.join(lacking)}")
    ids = {token: number for token, number in vocabulary.items() if len(token) == 1 or token == _MASK}
    ids |= {token.lower(): number for token, number in ids.items()}
    special = tokenizer.cls_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    return Alphabet(ids, *special, max_tokens)
