"""Writes adapters for the PEFT library: a folder with ``adapter_config.json`` and ``adapter_model.safetensors``."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from .adapters import Adapter, adapters_of
from .errors import CheckpointError


def save_peft_adapter(model: nn.Module, folder: Path | str, *, base: Path | str = "", force: bool = False) -> None:
    """Writes the adapters of a model as one LoRA adapter of the PEFT library.

    The adapter is for the model without adapters: the dense model, or the model that ``mpo restore`` makes from the checkpoint
    that was loaded. Square cores are multiplied into the frame on the side of the outputs. Other trained parameters, such as
    biases and norms, are not part of the adapter.

    Parameters
    ----------
    model
        a model with adapters, see `add_lora` and `add_deep_lora`.
    folder
        the folder to write.
    base
        the model that the adapter is for: a folder, or a name on a hub.
    force
        whether to replace an adapter that exists.

    Raises
    ------
    CheckpointError
        if the model has no adapters, or if the folder exists.
    """
    from safetensors.torch import save_file

    folder, adapters = Path(folder), adapters_of(model)
    if not adapters:
        raise CheckpointError(folder, "the model has no adapters; see add_lora and add_deep_lora")
    if folder.exists() and not (force and (folder / "adapter_config.json").is_file()):
        raise CheckpointError(folder, "exists; pass force=True to replace an adapter")
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    for path, adapter in adapters.items():
        down, up = _down_and_up(adapter)
        tensors[f"base_model.model.{path}.lora_A.weight"] = down
        tensors[f"base_model.model.{path}.lora_B.weight"] = up
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    ranks = {path: adapter.rank for path, adapter in adapters.items()}
    rank = max(ranks.values())
    others = {path: size for path, size in ranks.items() if size != rank}
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": str(base),
        "inference_mode": True,
        "r": rank,
        "lora_alpha": rank,
        "rank_pattern": others,
        "alpha_pattern": others,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": any(adapter.is_transposed for adapter in adapters.values()),
        "target_modules": sorted(ranks),
        "task_type": None,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")


@torch.no_grad()
def _down_and_up(adapter: Adapter) -> tuple[Tensor, Tensor]:
    """``A [r, inputs]`` and ``B [outputs, r]``, whose product ``B A`` is added to the matrix ``[outputs, inputs]``."""
    left, *inner, right = [core.detach().cpu().double() for core in adapter.whole_cores()]
    left, right = left[0, :, 0], right[:, 0, :, 0]
    if adapter.is_transposed:
        for core in reversed(inner):
            right = core[:, 0, 0] @ right
        down, up = left.T, right.T
    else:
        for core in inner:
            left = left @ core[:, 0, 0]
        down, up = right, left
    return down.to(adapter.dtype).contiguous(), up.to(adapter.dtype).contiguous()
