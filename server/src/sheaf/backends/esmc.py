"""ESM Cambrian of the transformers library: what the model says of each residue, padding removed.

Model: ESM Team 2024, "ESM Cambrian", the `ESMC-*` checkpoints in the library's own format; no code comes
with a checkpoint.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from sheaf.api.protein_language import ProteinLanguageRequest, ProteinLanguageResponse
from sheaf.backends._families.proteins import ProteinBackend, count_tokens
from sheaf.backends._shared.refusals import answer_each, check_finite, refuse
from sheaf.backends.base import respond
from sheaf.backends.info import BackendInfo, Weights
from sheaf.registry import register_backend

if TYPE_CHECKING:
    import torch

#: Most numbers in one answer: about 300 MB of JSON.
MAX_VALUES = 2**24


@register_backend("esmc")
class ESMCBackend(ProteinBackend[ProteinLanguageRequest, ProteinLanguageResponse]):
    """Logits and states equal to the library's own call for each sequence alone.

    The settings are those of `ProteinBackend` and `PretrainedBackend`.
    """

    model_type: ClassVar[str] = "protein_language"
    info: ClassVar[BackendInfo | None] = BackendInfo(
        title="ESM Cambrian",
        extra="proteins",
        libraries=("torch", "transformers", "accelerate"),
        default_model="biohub/ESMC-300M",
        memory_mb=1330,
        weights=(
            Weights(models=("biohub/esmc-*",), license="MIT", card="https://huggingface.co/biohub/ESMC-300M"),
        ),
        papers=("https://www.evolutionaryscale.ai/blog/esm-cambrian",),
    )

    architectures: ClassVar[tuple[str, ...]] = ("esmc",)
    model_class: ClassVar[str] = "EsmcForMaskedLM"
    processor_class: ClassVar[str | None] = "EsmcTokenizer"

    @staticmethod
    def max_tokens(config: Any) -> int:
        return int(config.max_position_embeddings)

    def smallest(self) -> ProteinLanguageRequest:
        return ProteinLanguageRequest(model_name="warm-up", sequences=["MKT"])

    def check(self, request: ProteinLanguageRequest) -> None:
        super().check(request)
        for_each = self._numbers_for_each(request)
        asked = for_each * sum(map(count_tokens, request.sequences))
        if asked > MAX_VALUES:
            message = (
                f"The answer would hold {asked:,} numbers, {for_each:,} for each token; "
                f"at most {MAX_VALUES:,}. Ask for fewer sequences, or for less of each."
            )
            raise refuse("/sequences", message, "out_of_range")

    def answer_size(self, request: ProteinLanguageRequest) -> int:
        return 20 * self._numbers_for_each(request) * sum(map(count_tokens, request.sequences))

    def _numbers_for_each(self, request: ProteinLanguageRequest) -> int:
        """Numbers that an answer holds for each token."""
        known = self.known
        return int(
            request.return_logits * known.vocab_size
            + _wants(request, "embeddings") * known.hidden_size
            + request.output_hidden_states * (known.layers + 1) * known.hidden_size
        )

    def batch_key(self, request: ProteinLanguageRequest) -> Hashable:
        """Whether the states of all layers are asked for, which the others' passes would hold for nothing."""
        return request.output_hidden_states

    def batch_predict(
        self, requests: Sequence[ProteinLanguageRequest]
    ) -> list[ProteinLanguageResponse | Exception]:
        import torch

        sequences = [sequence for request in requests for sequence in request.sequences]
        asked = [request for request in requests for _ in request.sequences]
        read: dict[int, dict[str, torch.Tensor]] = {}
        with torch.inference_mode():
            for batch in self.passes(sequences):
                found = self._run(
                    batch.inputs, hidden=any(asked[i].output_hidden_states for i in batch.members)
                )
                for row, (index, length) in enumerate(zip(batch.members, batch.lengths, strict=True)):
                    read[index] = {
                        name: values[row, ..., :length, :].clone()
                        for name, values in found.items()
                        if _wants(asked[index], name)
                    }
        ordered = iter([read[index] for index in range(len(sequences))])
        of_requests = [[next(ordered) for _ in request.sequences] for request in requests]
        return [*answer_each(_answer, requests, of_requests)]

    def _run(self, inputs: dict[str, torch.Tensor], *, hidden: bool) -> dict[str, torch.Tensor]:
        """Fields of the answer for each row, float32 on the CPU: shape (rows, …, tokens, width)."""
        import torch

        model = self.model
        out = model.esmc(**inputs, output_hidden_states=hidden)
        last = out.last_hidden_state
        found = {"logits": model.lm_head(last), "embeddings": last}
        if hidden:
            found["hidden_states"] = torch.stack([states.to(last.device) for states in out.hidden_states], 1)
        return {name: values.float().cpu() for name, values in found.items()}


def _wants(request: ProteinLanguageRequest, name: str) -> bool:
    return {
        "logits": request.return_logits,
        # The states of all layers bring those of the last along, as the contract says.
        "embeddings": request.return_embeddings or request.output_hidden_states,
        "hidden_states": request.output_hidden_states,
    }[name]


def _answer(request: ProteinLanguageRequest, sequences: list[dict[str, Any]]) -> ProteinLanguageResponse:
    for index, values in enumerate(sequences):
        message = "The model gives no finite values for this sequence."
        check_finite(f"/sequences/{index}", message, *values.values())
    first = sequences[0]
    fields = {name: [values[name].tolist() for values in sequences] for name in first}
    if "hidden_states" in fields:
        # Layer by layer, and in each the sequences.
        fields["hidden_states"] = [list(layer) for layer in zip(*fields["hidden_states"], strict=True)]
    return respond(
        request,
        ProteinLanguageResponse,
        **fields,
        seq_lens=[count_tokens(sequence) for sequence in request.sequences],
        vocab_size=first["logits"].shape[-1] if "logits" in first else None,
        hidden_dim=first["embeddings"].shape[-1] if "embeddings" in first else None,
    )
