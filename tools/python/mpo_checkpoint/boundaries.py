"""Values at the boundaries of a model's blocks: in a file, and in memory too if they are few."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

# Bytes that are kept in memory; more are in the file only.
MEMORY = 2 << 30


class Boundaries:
    """Float32 tensors of one shape by place, where a place is a boundary and a batch.

    Parameters
    ----------
    count
        how many places there are.
    shape
        of each tensor.
    path
        the file, which holds what was set by an earlier run with the same count and shape.
    memory
        bytes; where all together are no larger, what is set is kept in memory too.
    """

    def __init__(self, count: int, shape: torch.Size, path: Path, memory: int = MEMORY):
        self.shape = shape
        self._kept: dict[int, Tensor] | None = {} if count * shape.numel() * 4 <= memory else None
        # Not buffered: what is set is in the file when the next statement runs.
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
        """Forgets a value that is not needed again."""
        if self._kept is not None:
            self._kept.pop(place, None)
