"""The kinds of layers whose matrix can be made of matrix product operators."""

from __future__ import annotations

from enum import Enum

from torch import nn


class Kind(Enum):
    """How a layer uses its weight ``[I, J]``."""

    LINEAR = "linear"
    """``y = x Wᵀ``: rows are outputs, columns inputs."""
    CONV1D = "conv1d"
    """``y = x W``, GPT-2's linear layer: rows are inputs, columns outputs."""
    EMBEDDING = "embedding"
    """``y = W[id]``: rows are looked up, columns are outputs."""


def kind_of(module: nn.Module) -> Kind | None:
    """The kind of a layer that has a matrix; None for any other module."""
    if isinstance(module, nn.Linear):
        return Kind.LINEAR
    if isinstance(module, nn.Embedding):
        return Kind.EMBEDDING
    # By name, because transformers need not be installed.
    if type(module).__name__ == "Conv1D" and hasattr(module, "nf"):
        return Kind.CONV1D
    return None
