"""ESM-2 of the transformers library: one vector for each protein, whatever shares its pass.

Model: Lin et al. 2023, "Evolutionary-scale prediction of atomic-level protein structure with a language
model", the `esm2_*` checkpoints; ESM-1b and ESM-1v checkpoints are of the same class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from sheaf.api.molecular import MolecularRequest, MolecularResponse
from sheaf.backends._families.proteins import Pass, ProteinBackend
from sheaf.backends._shared.refusals import attempt, check_finite
from sheaf.backends.base import respond
from sheaf.registry import register_backend

if TYPE_CHECKING:
    import torch


@register_backend("esm2")
class ESM2Backend(ProteinBackend[MolecularRequest, MolecularResponse]):
    """Embeddings equal to the library's own call for each sequence alone, pooled over its residues.

    Args:
        model_id: Hub id, or the folder of a checkpoint in safetensors.
        device: `cpu`, `cuda`, `cuda:1` …, or `auto` to spread a large model over the devices there are.
        dtype: `float32`, `bfloat16`, `float16`, or `auto` for that of the checkpoint.
        revision: Branch, tag or commit on the hub.
        tokens_per_pass: Most tokens in one pass through the model, as in `ProteinBackend`.
        pass_overhead: What a pass costs besides its tokens, in tokens, as in `ProteinBackend`.
    """

    model_type: ClassVar[str] = "molecular"

    _model_class: ClassVar[str] = "EsmModel"
    _tokenizer_class: ClassVar[str] = "EsmTokenizer"
    _architecture: ClassVar[str] = "esm"
    _vocabulary: ClassVar[str | None] = "vocab.txt"
    _options: ClassVar[Mapping[str, Any]] = {"add_pooling_layer": False}
    _unused: ClassVar[tuple[str, ...]] = ("contact_head.",)

    def __init__(
        self,
        model_id: str = "facebook/esm2_t33_650M_UR50D",
        *,
        device: str = "cpu",
        dtype: Any = "float32",
        revision: str | None = None,
        tokens_per_pass: int | None = None,
        pass_overhead: float | None = None,
    ) -> None:
        super().__init__(
            model_id,
            device=device,
            dtype=dtype,
            revision=revision,
            tokens_per_pass=tokens_per_pass,
            pass_overhead=pass_overhead,
        )

    @staticmethod
    def _max_tokens(config: Any) -> int:
        # Positions begin after that of the padding.
        return int(config.max_position_embeddings - config.pad_token_id - 1)

    def warm_up(self) -> None:
        self.predict(MolecularRequest(model_name="warm-up", sequences=["MKT"]))

    def _answers(self, requests: Sequence[MolecularRequest]) -> list[MolecularResponse | Exception]:
        import torch

        sequences = [sequence for request in requests for sequence in request.sequences]
        pooling = [request.pooling for request in requests for _ in request.sequences]
        vectors: dict[int, torch.Tensor] = {}
        with torch.inference_mode():
            for batch in self._passes(sequences):
                pooled = self._pool(batch)
                for row, index in enumerate(batch.members):
                    vectors[index] = pooled[pooling[index]][row]
        ordered = iter([vectors[index] for index in range(len(sequences))])
        return [
            attempt(_answer, request, torch.stack([next(ordered) for _ in request.sequences]))
            for request in requests
        ]

    def _pool(self, batch: Pass) -> dict[str, torch.Tensor]:
        """Both kinds of vectors of each row, float32 of shape (rows, hidden size), on the CPU."""
        import torch

        states = self._model(**batch.inputs).last_hidden_state
        lengths = torch.tensor(batch.lengths, device=states.device)[:, None]
        places = torch.arange(states.shape[1], device=states.device)
        others = (places == 0) | (places >= lengths - 1)  # the start, the end and the padding
        total = states.float().masked_fill(others[..., None], 0.0).sum(1)
        return {"mean": (total / (lengths - 2)).cpu(), "cls": states[:, 0].float().cpu()}


def _answer(request: MolecularRequest, vectors: Any) -> MolecularResponse:
    import torch

    for index, vector in enumerate(vectors):
        check_finite(f"/sequences/{index}", "The model gives no finite vector for this sequence.", vector)
    if request.normalize:
        vectors = torch.nn.functional.normalize(vectors, dim=-1)
    return respond(request, MolecularResponse, embeddings=vectors.tolist(), dim=vectors.shape[-1])
