"""ESM-2 of the transformers library: one vector for each protein, whatever shares its pass.

Model: Lin et al. 2023, "Evolutionary-scale prediction of atomic-level protein structure with a language
model", the `esm2_*` checkpoints; ESM-1b and ESM-1v checkpoints are of the same class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from sheaf.api.molecular import MolecularRequest, MolecularResponse
from sheaf.backends._families.proteins import Pass, ProteinBackend
from sheaf.backends._shared.refusals import answer_each, check_finite
from sheaf.backends.base import respond
from sheaf.backends.info import BackendInfo, Weights
from sheaf.registry import register_backend

if TYPE_CHECKING:
    import torch


@register_backend("esm2")
class ESM2Backend(ProteinBackend[MolecularRequest, MolecularResponse]):
    """Embeddings equal to the library's own call for each sequence alone, pooled over its residues.

    The settings are those of `ProteinBackend` and `PretrainedBackend`.
    """

    model_type: ClassVar[str] = "molecular"
    info: ClassVar[BackendInfo | None] = BackendInfo(
        title="ESM-2",
        extra="proteins",
        libraries=("torch", "transformers", "accelerate"),
        default_model="facebook/esm2_t33_650M_UR50D",
        memory_mb=2600,
        weights=(
            Weights(
                models=("facebook/esm2_*", "facebook/esm1b_*", "facebook/esm1v_*"),
                license="MIT",
                card="https://huggingface.co/facebook/esm2_t33_650M_UR50D",
            ),
        ),
        papers=("https://doi.org/10.1126/science.ade2574",),
    )

    architectures: ClassVar[tuple[str, ...]] = ("esm",)
    model_class: ClassVar[str] = "EsmModel"
    processor_class: ClassVar[str | None] = "EsmTokenizer"
    model_options: ClassVar[Mapping[str, Any]] = {"add_pooling_layer": False}
    required_files: ClassVar[tuple[str, ...]] = ("vocab.txt",)
    unused_weights: ClassVar[tuple[str, ...]] = ("contact_head.",)

    @staticmethod
    def max_tokens(config: Any) -> int:
        # Positions begin after that of the padding.
        return int(config.max_position_embeddings - config.pad_token_id - 1)

    def smallest(self) -> MolecularRequest:
        return MolecularRequest(model_name="warm-up", sequences=["MKT"])

    def batch_predict(self, requests: Sequence[MolecularRequest]) -> list[MolecularResponse | Exception]:
        import torch

        sequences = [sequence for request in requests for sequence in request.sequences]
        pooling = [request.pooling for request in requests for _ in request.sequences]
        vectors: dict[int, torch.Tensor] = {}
        with torch.inference_mode():
            for batch in self.passes(sequences):
                pooled = self._pool(batch)
                for row, index in enumerate(batch.members):
                    vectors[index] = pooled[pooling[index]][row]
        ordered = iter([vectors[index] for index in range(len(sequences))])
        found = [torch.stack([next(ordered) for _ in request.sequences]) for request in requests]
        return [*answer_each(_answer, requests, found)]

    def _pool(self, batch: Pass) -> dict[str, torch.Tensor]:
        """Both kinds of vectors of each row, float32 of shape (rows, hidden size), on the CPU."""
        import torch

        states = self.model(**batch.inputs).last_hidden_state
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
