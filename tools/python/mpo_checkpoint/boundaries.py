"""Values at the boundaries of a model's blocks: in memory, or in a temporary file when there are many."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

# Bytes that are kept in memory; more go to a file.
MEMORY = 2 << 30


class Boundaries:
    """Float32 tensors of one shape by place, where a place is a boundary and a batch.

    Args:
        count: how many places there are.
        shape: of each tensor.
        folder: where the temporary file is made when all together are larger than ``memory``.
        memory: bytes.
    """

    def __init__(self, count: int, shape: torch.Size, folder: Path, memory: int = MEMORY):
        self.shape = shape
        self._kept: list[Tensor | None] | None = [None] * count
        if count * shape.numel() * 4 > memory:
            self._kept = None
            self._file = tempfile.TemporaryFile(dir=folder, prefix=".boundaries.")

    def __setitem__(self, place: int, value: Tensor) -> None:
        value = value.detach().to("cpu", torch.float32).reshape(self.shape)
        if self._kept is not None:
            self._kept[place] = value
            return
        self._file.seek(place * self.shape.numel() * 4)
        self._file.write(np.ascontiguousarray(value.numpy()))

    def __getitem__(self, place: int) -> Tensor:
        if self._kept is not None:
            return self._kept[place]
        self._file.seek(place * self.shape.numel() * 4)
        values = np.fromfile(self._file, np.float32, self.shape.numel())
        return torch.from_numpy(values).reshape(self.shape)

    def drop(self, place: int) -> None:
        """The value is not needed again."""
        if self._kept is not None:
            self._kept[place] = None
