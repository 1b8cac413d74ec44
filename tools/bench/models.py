"""Writes checkpoints with the sizes of real models: random matrices with a decaying spectrum; or statistics for one.

usage: models.py {bert-base,minilm,llama-1.1b,smollm2-135m,layers} FOLDER [--dtype F32|BF16] [--layers N] [--statistics FILE]
"""

import argparse
import json
import math
import struct
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

SHARD_BYTES = 2_000_000_000


def bert(layers=12, hidden=768):
    """Names and shapes of a BERT; BERT-base, 110 million parameters, unless told otherwise."""
    shapes = {
        "embeddings.word_embeddings.weight": (30522, hidden),
        "embeddings.position_embeddings.weight": (512, hidden),
        "embeddings.LayerNorm.weight": (hidden,),
    }
    for layer in range(layers):
        prefix = f"encoder.layer.{layer}."
        for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            shapes[f"{prefix}{name}.weight"] = (hidden, hidden)
            shapes[f"{prefix}{name}.bias"] = (hidden,)
        shapes[f"{prefix}intermediate.dense.weight"] = (4 * hidden, hidden)
        shapes[f"{prefix}output.dense.weight"] = (hidden, 4 * hidden)
    shapes["pooler.dense.weight"] = (hidden, hidden)
    return shapes


def llama(layers=22, hidden=2048, inner=5632, key_value=256, vocabulary=32000, is_tied=False):
    """Names and shapes of a Llama with grouped-query attention; 1.1 billion parameters unless told otherwise."""
    shapes = {"model.embed_tokens.weight": (vocabulary, hidden)}
    if not is_tied:
        shapes["lm_head.weight"] = (vocabulary, hidden)
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


MODELS = {
    "bert-base": lambda options: bert(),
    "minilm": lambda options: bert(layers=6, hidden=384),
    "llama-1.1b": lambda options: llama(),
    "smollm2-135m": lambda options: llama(30, hidden=576, inner=1536, key_value=192, vocabulary=49152, is_tied=True),
    "layers": lambda options: stacked(options.layers),
}


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


READ_THE_SAME = ("query", "key", "value"), ("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")


def write_statistics(path, shapes, seed=0):
    """Statistics of a model's matrices in layers: second moments of some large directions and a flat rest."""
    generator = np.random.default_rng(seed)
    tensors, same = {}, {}
    for name, shape in shapes.items():
        if ".layer" not in name or len(shape) != 2:
            continue
        for side, size in zip(("row", "column"), shape):
            key = f"{name}.{side}_gram"
            if side == "column":
                part = name.split(".")[-2]
                first = next((group[0] for group in READ_THE_SAME if part in group[1:]), None)
                if first:
                    same[key] = key.replace(part, first)
                    continue
            directions = generator.standard_normal((size, min(size, 64)), np.float32) / np.sqrt(np.arange(1, 65)[: min(size, 64)])
            tensors[key] = (directions @ directions.T + np.eye(size))[np.triu_indices(size)].astype(np.float32)
    metadata = {
        "format": "mpo-statistics", "version": "2", "samples": "1", "tokens": "1", "description": "made up", "input_rows": "[]",
        "same": json.dumps(same),
    }
    save_file(tensors, path, metadata)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=list(MODELS))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dtype", choices=["F32", "BF16"], default="F32")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--statistics", type=Path, metavar="FILE", help="written too")
    options = parser.parse_args()
    shapes = MODELS[options.model](options)
    write(options.folder, shapes, options.dtype)
    if options.statistics:
        write_statistics(options.statistics, shapes)


if __name__ == "__main__":
    main()
