"""Hidden states at the boundaries of a model's blocks: in a file, and also in memory if they fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

MEMORY = 2 << 30
"""Up to this many bytes are also kept in memory; more are only in the file."""


class Boundaries:
    """Float32 tensors of one shape, by the number of a place; each boundary has a place for each batch.

    Parameters
    ----------
    count
        the number of places.
    shape
        the shape of each tensor.
    path
        the file. If it exists, it has the tensors of an earlier run with the same count and shape.
    memory
        in bytes; if all tensors together take no more, they are also kept in memory.
    """

    def __init__(self, count: int, shape: torch.Size, path: Path, memory: int = MEMORY):
        self.shape = shape
        self._kept: dict[int, Tensor] | None = {} if count * shape.numel() * 4 <= memory else None
        # Without a buffer, so that a tensor is in the file as soon as it is set.
        self._file = open(path, "r+b" if path.exists() else "x+b", buffering=0)

    def __setitem__(self, place: int, value: Tensor) -> None:
        value = value.detach().to("cpu", torch.float32).reshape(self.shape).contiguous()
        if self._kept is not None:
            self._kept[place] = value
        values = memoryview(value.numpy()).cast("B")
        self._file.seek(place * len(values))
        while values:
            values = values[self._file.write(values) :]

    def __getitem__(self, place: int) -> Tensor:
        if self._kept is not None and place in self._kept:
            return self._kept[place]
        self._file.seek(place * self.shape.numel() * 4)
        values = np.fromfile(self._file, np.float32, self.shape.numel())
        return torch.from_numpy(values).reshape(self.shape)

    def drop(self, place: int) -> None:
        """Frees the memory of a tensor that is not needed again."""
        if self._kept is not None:
            self._kept.pop(place, None)
