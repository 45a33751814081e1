"""Embed 64 proteins of mixed lengths at once: a batch is bounded by tokens, and near lengths go together.

The model is a tiny ESM-2 with random weights that is made here, so nothing is downloaded.
"""

import asyncio
import tempfile
from pathlib import Path

import numpy as np
from transformers import EsmConfig, EsmForMaskedLM

from sheaf import ModelSpec
from sheaf_client import AsyncSheaf

TOKENS = ["<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYMHWCXBUZO.-", "<null_1>", "<mask>"]
SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


async def embed(spec: ModelSpec) -> None:
    rng = np.random.default_rng(0)
    lengths = rng.permutation(np.geomspace(30, 1000, 64).astype(int))
    proteins = ["".join(rng.choice(TOKENS[4:24], length)) for length in lengths]
    async with AsyncSheaf.local([spec]) as client:
        calls = [client.molecular.embed(model="esm2", sequences=[protein]) for protein in proteins]
        for protein, answer in zip(proteins, await asyncio.gather(*calls), strict=True):
            print(f"{len(protein):4} residues, in a batch of {answer.metadata.usage.batch_size}")


with tempfile.TemporaryDirectory() as folder:
    config = EsmConfig(vocab_size=33, pad_token_id=1, mask_token_id=32, **SHAPE)
    EsmForMaskedLM(config).save_pretrained(folder)
    Path(folder, "vocab.txt").write_text("\n".join(TOKENS))
    policy = {"max_batch_cost": 2048}  # of one batch: the tokens of its longest protein times its size
    kwargs = {"model_id": folder}
    asyncio.run(embed(ModelSpec(name="esm2", backend="esm2", backend_kwargs=kwargs, batch_policy=policy)))
