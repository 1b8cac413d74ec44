#!/usr/bin/env python3
"""Writes a Llama that computes the same function, but whose weights lie on no grid of quantisation.

usage: rotated.py MODEL FOLDER [SEED]      (default: seed 0)

The SmolLM2 of tools/fetch-smollm2 was dequantised from Q4_1, so rounding it to 4 bits in the same groups is exact and does not
compare methods. This script multiplies the gain of every norm into the matrices that read the norm's output, and rotates the
residual stream by a random orthogonal matrix Q. RMSNorm without a gain commutes with Q, so the function stays the same. A
matrix that reads the stream becomes ``W diag(gain) Q``, a matrix that writes to it ``Qᵀ W``. The head reads the output of the
last norm and the embedding does not, so the two are no longer tied.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

READERS = {
    "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
}
WRITERS = ("self_attn.o_proj", "mlp.down_proj")
EMBEDDING, HEAD, LAST_NORM = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"


def orthogonal(size, seed=0):
    """A random orthogonal matrix from the Haar measure, ``[size, size]`` float64."""
    q, r = np.linalg.qr(np.random.default_rng(seed).standard_normal((size, size)))
    return q * np.sign(r.diagonal())


def rotated(tensors, seed=0):
    """The tensors of a Llama with its gains in the matrices and its residual stream rotated; float32, computed in float64."""
    turn = orthogonal(tensors[EMBEDDING].shape[1], seed)
    head = tensors.get(HEAD, tensors[EMBEDDING])
    result = {
        EMBEDDING: tensors[EMBEDDING].astype(np.float64) @ turn,
        HEAD: (head.astype(np.float64) * tensors[LAST_NORM]) @ turn,
        LAST_NORM: np.ones_like(tensors[LAST_NORM]),
    }
    layers = {name.removesuffix("input_layernorm.weight") for name in tensors if name.endswith("input_layernorm.weight")}
    for layer in layers:
        for norm, readers in READERS.items():
            gain = tensors[f"{layer}{norm}.weight"]
            result[f"{layer}{norm}.weight"] = np.ones_like(gain)
            for reader in readers:
                name = f"{layer}{reader}.weight"
                result[name] = (tensors[name].astype(np.float64) * gain) @ turn
        for writer in WRITERS:
            name = f"{layer}{writer}.weight"
            result[name] = turn.T @ tensors[name].astype(np.float64)
    if unknown := sorted(set(tensors) - set(result)):
        raise ValueError(f"{unknown[0]}: is not a tensor of a Llama without biases, so the stream can't be rotated; give another model")
    return {name: value.astype(np.float32) for name, value in result.items()}


def write_rotated(folder, output, seed=0):
    """Writes the folder ``output`` with the rotated model; it appears whole or not at all."""
    folder, output = Path(folder), Path(output)
    unfinished = output.with_name(output.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(folder, unfinished, ignore=shutil.ignore_patterns("*.safetensors", "*.safetensors.index.json"))
    configuration = json.loads((folder / "config.json").read_text("utf-8"))
    configuration["tie_word_embeddings"] = False
    (unfinished / "config.json").write_text(json.dumps(configuration, indent=2) + "\n", "utf-8")
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors.update(load_file(path))
    save_file(rotated(tensors, seed), unfinished / "model.safetensors", {"format": "pt"})
    unfinished.rename(output)


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    write_rotated(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
    print(sys.argv[2])
