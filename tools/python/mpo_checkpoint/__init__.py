"""MPO checkpoints in Python: read them, run and fine-tune them in PyTorch, calibrate conversions.

``load_dense``, ``MPOCheckpoint`` and ``Statistics`` need only NumPy. Everything else needs PyTorch, which is imported on first
use. Once this package is imported, ``from_pretrained`` of transformers' classes loads folders that ``mpo convert`` wrote.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from . import integrations

__version__ = "0.2.0"

_HOMES = {
    "CheckpointError": "errors",
    "MPOCheckpoint": "checkpoint",
    "load_dense": "checkpoint",
    "load_into": "loading",
    "from_pretrained": "loading",
    "save": "saving",
    "LoadReport": "load_report",
    "MPOMatrix": "mpo_matrix",
    "MPOWeight": "mpo_weight",
    "CompactMPOWeight": "compact_weight",
    "MPOBlockWeight": "block_weight",
    "MPOLinear": "mpo_layers",
    "MPOConv1D": "mpo_layers",
    "MPOEmbedding": "mpo_layers",
    "Adapter": "adapters",
    "adapters_of": "adapters",
    "add_lora": "adapters",
    "add_deep_lora": "adapters",
    "save_peft_adapter": "peft_adapter",
    "MixedRank": "mixed_rank",
    "MPOConfig": "integrations.transformers",
    "SpectralMPOWeight": "spectral",
    "parametrized": "spectral",
    "Statistics": "statistics",
    "StatisticsError": "errors",
    "collect_statistics": "calibration",
    "calibrate_folder": "huggingface",
    "sentence_embedding": "outputs",
}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith(__name__):
            raise
        raise ModuleNotFoundError(
            f"mpo_checkpoint.{name} needs the package {error.name}; run: pip install {error.name}", name=error.name
        ) from None


def __dir__() -> list[str]:
    return sorted(__all__)


integrations.register()
