"""Frozen tensors, and the basis, permutation or scale at a side of a matrix."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Constant(nn.Module):
    """A tensor that moves with the model, but is neither trained nor in its state dict. Modules may share it."""

    def __init__(self, value: Tensor):
        super().__init__()
        self.register_buffer("value", value, persistent=False)


class SideBasis(nn.Module):
    """The frozen factor ``U D`` between a side of a matrix, of size n, and its chain ``C``, in ``U_r D_r C D_c U_cᵀ``.

    Parameters
    ----------
    basis
        ``U [n, n]``, orthogonal; None for the identity.
    permutation
        instead of ``basis``, integers p ``[n]``: row a of ``U C`` is row ``p[a]`` of ``C``.
    scale
        the diagonal of ``D [n]``; None for the identity.
    """

    def __init__(
        self, basis: Constant | None = None, permutation: Constant | None = None, scale: Constant | None = None
    ):
        super().__init__()
        self.basis, self.permutation, self.scale = basis, permutation, scale

    @property
    def cost(self) -> int:
        """The multiplications for one vector."""
        return sum(part.value.numel() for part in (self.basis, self.scale) if part is not None)

    def enter(self, x: Tensor) -> Tensor:
        """``x U D`` for rows ``x [..., n]``: from the side to the chain."""
        if self.permutation is not None:
            x = x[..., torch.argsort(self.permutation.value)]
        if self.basis is not None:
            x = x @ self.basis.value
        return x if self.scale is None else x * self.scale.value

    def leave(self, x: Tensor) -> Tensor:
        """``x D Uᵀ`` for rows ``x [..., n]``: from the chain to the side."""
        if self.scale is not None:
            x = x * self.scale.value
        if self.basis is not None:
            x = x @ self.basis.value.T
        return x if self.permutation is None else x[..., self.permutation.value]
