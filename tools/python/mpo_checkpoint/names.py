"""Names of tensors, which may differ between a checkpoint and a model."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

_LEGACY_SUFFIXES = {".weight": ".gamma", ".bias": ".beta"}


def checkpoint_name(model_name: str, stored: Collection[str], prefix: str = "") -> str | None:
    """The name of a model's tensor in a checkpoint; None if the checkpoint does not have it.

    The names may differ by the base model's prefix (``bert.``), if only one of checkpoint and model has a task head, and by the
    old names of layer norms' parameters (``gamma``, ``beta``).

    Parameters
    ----------
    model_name
        the name in the model.
    stored
        all names in the checkpoint.
    prefix
        the base model's prefix without the dot; empty if there is none.
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
    """The names of all tensors in the safetensors files of a model folder; None if it has no such files."""
    from safetensors import safe_open

    index = folder / "model.safetensors.index.json"
    if index.exists():
        return set(json.loads(index.read_text("utf-8"))["weight_map"])
    path = folder / "model.safetensors"
    if not path.exists():
        return None
    with safe_open(path, "np") as file:
        return set(file.keys())
