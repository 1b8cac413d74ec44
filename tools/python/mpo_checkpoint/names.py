"""Tensor names: a checkpoint's and a model's need not be the same."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

_LEGACY_SUFFIXES = {".weight": ".gamma", ".bias": ".beta"}


def checkpoint_name(model_name: str, stored: Collection[str], prefix: str = "") -> str | None:
    """The stored name of a model's tensor; None if it isn't stored.

    The names differ by the base model's prefix (``bert.``) where the checkpoint holds a task head and the model none, or
    the other way round, and by what layer norms were once called.
    """
    prefix = f"{prefix}." if prefix else ""
    candidates = [model_name]
    if prefix:
        candidates += [prefix + model_name, model_name.removeprefix(prefix)]
    for candidate in tuple(candidates):
        for suffix, legacy in _LEGACY_SUFFIXES.items():
            if candidate.endswith(suffix):
                candidates.append(candidate.removesuffix(suffix) + legacy)
    return next((candidate for candidate in candidates if candidate in stored), None)


def stored_names(folder: Path) -> set[str] | None:
    """Names of all tensors in the safetensors files of a model folder; None where it has none."""
    from safetensors import safe_open

    index = folder / "model.safetensors.index.json"
    if index.exists():
        return set(json.loads(index.read_text("utf-8"))["weight_map"])
    path = folder / "model.safetensors"
    if not path.exists():
        return None
    with safe_open(path, "np") as file:
        return set(file.keys())
