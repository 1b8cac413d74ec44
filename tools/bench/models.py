"""Writes checkpoints with the sizes of real models: random matrices with a decaying spectrum.

usage: models.py {bert-base,llama-1.1b,layers} FOLDER [--dtype F32|BF16] [--layers N]
"""

import argparse
import json
import math
import struct
from pathlib import Path

import numpy as np

SHARD_BYTES = 2_000_000_000


def bert_base():
    """Names and shapes of BERT-base, 110 million parameters."""
    shapes = {
        "embeddings.word_embeddings.weight": (30522, 768),
        "embeddings.position_embeddings.weight": (512, 768),
        "embeddings.LayerNorm.weight": (768,),
    }
    for layer in range(12):
        prefix = f"encoder.layer.{layer}."
        for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            shapes[f"{prefix}{name}.weight"] = (768, 768)
            shapes[f"{prefix}{name}.bias"] = (768,)
        shapes[f"{prefix}intermediate.dense.weight"] = (3072, 768)
        shapes[f"{prefix}output.dense.weight"] = (768, 3072)
    shapes["pooler.dense.weight"] = (768, 768)
    return shapes


def llama(layers=22):
    """Names and shapes of a Llama with grouped-query attention; 1.1 billion parameters with 22 layers."""
    hidden, inner, key_value, vocabulary = 2048, 5632, 256, 32000
    shapes = {"model.embed_tokens.weight": (vocabulary, hidden), "lm_head.weight": (vocabulary, hidden)}
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        shapes[prefix + "input_layernorm.weight"] = (hidden,)
        for name, rows in (("q", hidden), ("k", key_value), ("v", key_value), ("o", hidden)):
            shapes[f"{prefix}self_attn.{name}_proj.weight"] = (rows, hidden)
        shapes[prefix + "mlp.gate_proj.weight"] = (inner, hidden)
        shapes[prefix + "mlp.up_proj.weight"] = (inner, hidden)
        shapes[prefix + "mlp.down_proj.weight"] = (hidden, inner)
    return shapes


def stacked(layers, side=1024):
    """Names and shapes of ``layers`` square matrices."""
    return {f"layers.{layer}.weight": (side, side) for layer in range(layers)}


def decaying(generator, shape):
    """A random array. A matrix has some large, decreasing singular values and a flat rest, as trained weights do."""
    values = generator.standard_normal(shape, np.float32) * np.float32(0.02)
    if len(shape) == 2:
        rank = min(*shape, 48)
        scale = np.float32(0.2 / math.sqrt(max(shape))) / np.sqrt(np.arange(1, rank + 1, dtype=np.float32))
        left = generator.standard_normal((shape[0], rank), np.float32) * scale
        values += left @ generator.standard_normal((rank, shape[1]), np.float32)
    return values


def bfloat16(values):
    """Float32 values rounded to bfloat16 (to nearest even), as uint16."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def write(folder, shapes, dtype="F32", seed=0):
    """Writes a model folder tensor by tensor, sharded if it is large."""
    folder.mkdir(parents=True)
    size = {"F32": 4, "BF16": 2}[dtype]
    shards, used = [[]], 0
    for name, shape in shapes.items():
        count = math.prod(shape) * size
        if used and used + count > SHARD_BYTES:
            shards.append([])
            used = 0
        shards[-1].append((name, shape, count))
        used += count
    generator = np.random.default_rng(seed)
    places = {}
    for number, shard in enumerate(shards, 1):
        file_name = f"model-{number:05}-of-{len(shards):05}.safetensors" if len(shards) > 1 else "model.safetensors"
        header, offset = {}, 0
        for name, shape, count in shard:
            header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + count]}
            offset += count
            places[name] = file_name
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with open(folder / file_name, "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for _, shape, _ in shard:
                values = decaying(generator, shape)
                file.write((bfloat16(values) if dtype == "BF16" else values).tobytes())
    if len(shards) > 1:
        index = {"metadata": {"total_size": sum(c for shard in shards for _, _, c in shard)}, "weight_map": places}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=["bert-base", "llama-1.1b", "layers"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dtype", choices=["F32", "BF16"], default="F32")
    parser.add_argument("--layers", type=int, default=8)
    options = parser.parse_args()
    shapes = {"bert-base": bert_base, "llama-1.1b": llama, "layers": lambda: stacked(options.layers)}[options.model]()
    write(options.folder, shapes, options.dtype)


if __name__ == "__main__":
    main()
