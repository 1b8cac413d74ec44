"""Statistics of a Hugging Face model folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from .statistics import Statistics, collect_statistics


def calibrate_folder(
    folder: Path,
    samples: list[str],
    *,
    projections: int = 4,
    batch_size: int = 16,
    max_length: int = 128,
    seed: int = 0,
) -> Statistics:
    """Runs samples of text through the model in a folder, offline.

    The output whose change the statistics measure is the normalised mean of the last hidden states where the folder is
    a sentence-embedding model (it has a ``1_Pooling`` folder), the last hidden states otherwise.
    """
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32, attn_implementation="eager")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    is_sentence_model = (folder / "1_Pooling").is_dir()

    def batches():
        # Samples of like length together, so that little is padding.
        ordered = sorted(samples, key=len)
        for start in range(0, len(ordered), batch_size):
            texts = ordered[start : start + batch_size]
            encoded = tokenizer(texts, return_tensors="pt", padding=True, truncation=True, max_length=max_length)
            yield encoded, encoded["attention_mask"], len(texts)
            if sys.stderr.isatty():
                print(f"\r{min(start + batch_size, len(ordered))} of {len(ordered)} samples", end="", file=sys.stderr)
        if sys.stderr.isatty():
            print(file=sys.stderr)

    def output(encoded) -> Tensor:
        hidden = model(**encoded).last_hidden_state
        return sentence_embedding(hidden, encoded["attention_mask"]) if is_sentence_model else hidden

    kind = "normalised mean of the last hidden states" if is_sentence_model else "last hidden states"
    statistics = collect_statistics(
        model, batches(), output, projections=projections, seed=seed,
        description=f"{folder.resolve().name}, {len(samples)} samples, {projections} projections of the {kind}",
    )
    return statistics.renamed(checkpoint_names(folder, model))


def sentence_embedding(hidden: Tensor, mask: Tensor) -> Tensor:
    """``[batch, features]`` of unit length from ``[batch, positions, features]``."""
    weights = mask[..., None].to(hidden.dtype)
    return nn.functional.normalize((hidden * weights).sum(1) / weights.sum(1), dim=-1)


def checkpoint_names(folder: Path, model: nn.Module):
    """Maps a model's parameter names to the tensor names of the folder's checkpoint, which may have another prefix."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        stored = set(json.loads(index.read_text())["weight_map"])
    else:
        with safe_open(folder / "model.safetensors", "np") as file:
            stored = set(file.keys())
    prefix = getattr(model, "base_model_prefix", "") + "."

    def name(parameter: str) -> str | None:
        candidates = (parameter, prefix + parameter, parameter.removeprefix(prefix))
        return next((candidate for candidate in candidates if candidate in stored), None)

    return name
