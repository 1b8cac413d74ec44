"""Fisher information of single elements, with which TFWSVD (arXiv 2211.09718) weights the errors of a matrix.

The gradient of one sample's objective in a layer's matrix is ``M = Σ g xᵀ`` over the positions of the sample. The weights are the
mean of ``M²`` over samples, element by element. If several layers use one matrix, their weights are added.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .layers import Kind
from .moments import Call, Use


class ElementUse(Use):
    """A module that multiplies with a weight, and the sum of its squared gradients ``[I, J]``."""

    def __init__(self, module: nn.Module, kind: Kind, shape: torch.Size, max_gram: int):
        self.module, self.kind = module, kind
        self.sum = torch.zeros(tuple(shape), dtype=torch.float64)

    def call(self, value: Tensor, grid: tuple[int, int], is_counted: Tensor | None, is_separable: bool) -> Call:
        return _ElementCall(self, value, grid, is_counted)

    @staticmethod
    def tensors(name: str, uses: list[Any], gradients: int) -> dict[str, np.ndarray]:
        weights: Tensor = sum(use.sum for use in uses) / gradients
        return {f"{name}.element_weights": weights.numpy()} if weights.any() else {}


class _ElementCall(Call):
    """One call of a layer, whose gradients are added as soon as they arrive."""

    use: ElementUse

    def __init__(self, use: ElementUse, inputs: Tensor, grid: tuple[int, int], is_counted: Tensor | None):
        self.use, self.grid, self.is_counted = use, grid, is_counted
        self.inputs = inputs.reshape(grid) if use.kind is Kind.EMBEDDING else self.rows(inputs)

    def add_gradients(self, gradients: Tensor) -> None:
        for x, g in zip(self.inputs, self.rows(gradients)):
            if self.use.kind is Kind.EMBEDDING:
                ids, places = torch.unique(x, return_inverse=True)
                rows = torch.zeros(len(ids), g.shape[1], dtype=g.dtype, device=g.device).index_add_(0, places, g)
                self.use.sum.index_add_(0, ids.cpu(), rows.square().double().cpu())
            else:
                gradient = g.T @ x.to(g) if self.use.kind is Kind.LINEAR else x.to(g).T @ g
                self.use.sum += gradient.square().cpu()

    def finish(self) -> None:
        pass
