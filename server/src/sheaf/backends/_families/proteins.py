"""What the backends of protein language models share: residues as tokens, passes by length, loading.

A request holds sequences of any lengths, and so does a batch. All of them together are sorted by length and
cut into passes, so padding is small whoever sent what; a vector never depends on who shared its pass.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar, Unpack

from sheaf.api.molecular import MolecularRequest, MolecularResponse
from sheaf.api.protein_language import ProteinLanguageRequest, ProteinLanguageResponse
from sheaf.backends._shared.loading import loaded
from sheaf.backends._shared.passes import cut_into_passes
from sheaf.backends._shared.pretrained import PretrainedBackend, PretrainedSettings
from sheaf.backends._shared.refusals import refuse

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


@dataclass(frozen=True, slots=True)
class ProteinFacts:
    """What is known of a loaded model.

    Attributes:
        alphabet: The tokens of its checkpoint.
        on_cpu: Whether it runs on a processor.
        vocab_size: Columns of its logits.
        hidden_size: Width of its states.
        layers: How many layers it has.
    """

    alphabet: Alphabet
    on_cpu: bool
    vocab_size: int
    hidden_size: int
    layers: int


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


class ProteinBackend(PretrainedBackend[RequestT, ResponseT]):
    """A protein language model of the transformers library; subclasses name its class and read its output.

    Args:
        model_id: As for every checkpoint, and with it the settings of `PretrainedBackend`.
        tokens_per_pass: Most tokens in one pass through the model, padding included; a longer sequence has
            a pass of its own. By default 1,024 on a CPU and 16,384 elsewhere.
        pass_overhead: What a pass costs besides its tokens, in tokens: a sequence is padded to a longer one
            only where that takes fewer. By default 16 on a CPU and 2,048 elsewhere.
    """

    padded: ClassVar[bool] = True

    def __init__(
        self,
        model_id: str | None = None,
        *,
        tokens_per_pass: int | None = None,
        pass_overhead: float | None = None,
        **settings: Unpack[PretrainedSettings],
    ) -> None:
        for name, value, least in (
            ("tokens_per_pass", tokens_per_pass, 1),
            ("pass_overhead", pass_overhead, 0),
        ):
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, not {value}")
        super().__init__(model_id, **settings)
        self.tokens_per_pass = tokens_per_pass
        self.pass_overhead = pass_overhead

    @staticmethod
    @abstractmethod
    def max_tokens(config: Any) -> int:
        """Most tokens of a sequence that a model of this configuration was made for."""

    def read_facts(self, model: Any, processor: Any) -> ProteinFacts:
        config = model.config
        return ProteinFacts(
            _alphabet(self.model_id, processor, self.max_tokens(config)),
            model.device.type == "cpu",
            config.vocab_size,
            config.hidden_size,
            config.num_hidden_layers,
        )

    @property
    def known(self) -> ProteinFacts:
        facts: ProteinFacts | None = self.facts
        return loaded(facts)

    def check(self, request: RequestT) -> None:
        self.known.alphabet.check(request.sequences)

    def cost(self, request: RequestT) -> float:
        """Tokens of all sequences, those before and after each included."""
        return float(sum(map(count_tokens, request.sequences)))

    def padded_cost(self, costs: Sequence[float]) -> float:
        """Cells of the passes of a batch; the sequences of one request count as one of all their tokens."""
        lengths = [int(cost) for cost in costs]
        return float(sum(len(members) * lengths[members[0]] for members in self._cut(lengths)))

    def passes(self, sequences: Sequence[str]) -> Iterator[Pass]:
        """All sequences in passes through the model, each sequence in one of them."""
        import torch

        alphabet, device = self.known.alphabet, self.model.device
        tokens = [alphabet.encode(sequence) for sequence in sequences]
        for members in self._cut([len(row) for row in tokens]):
            lengths = [len(tokens[i]) for i in members]
            rows = [tokens[i] + [alphabet.pad] * (lengths[0] - len(tokens[i])) for i in members]
            mask = torch.arange(lengths[0]) < torch.tensor(lengths)[:, None]
            inputs = {"input_ids": torch.tensor(rows), "attention_mask": mask.long()}
            yield Pass(members, lengths, {name: value.to(device) for name, value in inputs.items()})

    def _cut(self, lengths: Sequence[int]) -> list[list[int]]:
        on_cpu = self.known.on_cpu
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
