"""ESM Cambrian of the transformers library: what the model says of each residue, padding removed.

Model: ESM Team 2024, "ESM Cambrian", the `ESMC-*` checkpoints in the library's own format; no code comes
with a checkpoint.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from sheaf.api.protein_language import ProteinLanguageRequest, ProteinLanguageResponse
from sheaf.backends._families.proteins import ProteinBackend, count_tokens
from sheaf.backends._shared.refusals import attempt, check_finite, one_of, refuse
from sheaf.backends.base import respond
from sheaf.registry import register_backend

if TYPE_CHECKING:
    import torch

#: Most numbers in one answer: about 300 MB of JSON.
MAX_VALUES = 2**24


@register_backend("esmc")
class ESMCBackend(ProteinBackend[ProteinLanguageRequest, ProteinLanguageResponse]):
    """Logits and states equal to the library's own call for each sequence alone.

    Args:
        model_id: Hub id, or the folder of a checkpoint in safetensors; `model_name` is the older spelling.
        device: `cpu`, `cuda`, `cuda:1` …, or `auto` to spread a large model over the devices there are;
            `device_map` is the older spelling.
        dtype: `float32`, `bfloat16`, `float16`, or `auto` for that of the checkpoint.
        revision: Branch, tag or commit on the hub.
        tokens_per_pass: Most tokens in one pass through the model, as in `ProteinBackend`.
        pass_overhead: What a pass costs besides its tokens, in tokens, as in `ProteinBackend`.
    """

    model_type: ClassVar[str] = "protein_language"

    _model_class: ClassVar[str] = "EsmcForMaskedLM"
    _tokenizer_class: ClassVar[str] = "EsmcTokenizer"
    _architecture: ClassVar[str] = "esmc"

    def __init__(
        self,
        model_id: str | None = None,
        *,
        device: str | None = None,
        dtype: Any = "float32",
        revision: str | None = None,
        tokens_per_pass: int | None = None,
        pass_overhead: float | None = None,
        model_name: str | None = None,
        device_map: str | None = None,
    ) -> None:
        super().__init__(
            one_of("model_id", model_id, "model_name", model_name, "biohub/ESMC-300M"),
            device=one_of("device", device, "device_map", device_map, "cpu"),
            dtype=dtype,
            revision=revision,
            tokens_per_pass=tokens_per_pass,
            pass_overhead=pass_overhead,
        )

    @staticmethod
    def _max_tokens(config: Any) -> int:
        return int(config.max_position_embeddings)

    def warm_up(self) -> None:
        self.predict(ProteinLanguageRequest(model_name="warm-up", sequences=["MKT"]))

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
        config = self._model.config
        return int(
            request.return_logits * config.vocab_size
            + _wants(request, "embeddings") * config.hidden_size
            + request.output_hidden_states * (config.num_hidden_layers + 1) * config.hidden_size
        )

    def batch_key(self, request: ProteinLanguageRequest) -> Hashable:
        """Whether the states of all layers are asked for, which the others' passes would hold for nothing."""
        return request.output_hidden_states

    def _answers(
        self, requests: Sequence[ProteinLanguageRequest]
    ) -> list[ProteinLanguageResponse | Exception]:
        import torch

        sequences = [sequence for request in requests for sequence in request.sequences]
        asked = [request for request in requests for _ in request.sequences]
        read: dict[int, dict[str, torch.Tensor]] = {}
        with torch.inference_mode():
            for batch in self._passes(sequences):
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
        return [attempt(_answer, request, [next(ordered) for _ in request.sequences]) for request in requests]

    def _run(self, inputs: dict[str, torch.Tensor], *, hidden: bool) -> dict[str, torch.Tensor]:
        """Fields of the answer for each row, float32 on the CPU: shape (rows, …, tokens, width)."""
        import torch

        model = self._model
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
