"""Layers whose weight is a matrix product operator, with the state-dict keys of the format.

The weight of a layer is a module with the cores as its parameters, so that ``weight.cores.0`` is both the key in a
model's state dict and the end of the entry's name in the checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from . import contraction


class MPOWeight(nn.Module):
    """A matrix ``[I, J]`` as a chain of cores.

    A product is computed through the cores or with the matrix, whichever takes fewer multiplications for the batch at
    hand. Where no gradient is wanted, the matrix is kept once it was built, until a core changes (what is written to
    ``core.data`` goes unnoticed: call `clear_cache`).

    Args:
        cores: ``[d_k, i_k, j_k, d_{k+1}]``.
        shape: ``(I, J)``, not larger than the products of the factors.
        central: index of the central core.
        keeps_matrix: whether the matrix may be kept.
    """

    def __init__(self, cores: Sequence[Tensor], shape: tuple[int, int], central: int, keeps_matrix: bool = True):
        super().__init__()
        self.cores = nn.ParameterList(
            core if isinstance(core, nn.Parameter) else nn.Parameter(core) for core in cores
        )
        self.matrix_shape = tuple(shape)
        self.central = central
        self.keeps_matrix = keeps_matrix
        self._kept: tuple[Any, Tensor] | None = None

    @property
    def shape(self) -> torch.Size:
        return torch.Size(self.matrix_shape)

    @property
    def dtype(self) -> torch.dtype:
        return self.cores[0].dtype

    @property
    def device(self) -> torch.device:
        return self.cores[0].device

    @property
    def central_core(self) -> nn.Parameter:
        return self.cores[self.central]

    @property
    def auxiliary_cores(self) -> list[nn.Parameter]:
        return [core for k, core in enumerate(self.cores) if k != self.central]

    def matrix(self) -> Tensor:
        """``[I, J]``; differentiable in the cores."""
        if not self._may_keep:
            return self._matrix()
        key = [(core.data_ptr(), core.dtype, 0 if core.is_inference() else core._version) for core in self.cores]
        if self._kept is None or self._kept[0] != key:
            with torch.inference_mode(False), torch.no_grad():
                self._kept = key, self._matrix()
        return self._kept[1]

    def _matrix(self) -> Tensor:
        rows, columns = self.matrix_shape
        return contraction.matrix(list(self.cores))[:rows, :columns].contiguous()

    @property
    def _may_keep(self) -> bool:
        learning = any(core.requires_grad for core in self.cores)
        return self.keeps_matrix and not (learning and (self.training or torch.is_grad_enabled()))

    def clear_cache(self) -> None:
        """Forgets the matrix."""
        self._kept = None

    def train(self, mode: bool = True) -> MPOWeight:
        self.clear_cache()
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_kept": None}

    def forward(self, x: Tensor, bias: Tensor | None = None, transposed: bool = False) -> Tensor:
        """``x Wᵀ + bias`` of ``x [..., J]``; transposed, ``x W + bias`` of ``x [..., I]``."""
        inputs, outputs = self.matrix_shape if transposed else self.matrix_shape[::-1]
        flat = x.reshape(-1, inputs)
        if not self._is_matrix_cheaper(len(flat), transposed):
            cores = contraction.transposed(self.cores) if transposed else list(self.cores)
            padded = functional.pad(flat, (0, self._padded(cores) - inputs))
            result = contraction.apply(cores, padded)[:, :outputs]
            result = result if bias is None else result + bias
        else:
            matrix = self.matrix()
            result = functional.linear(flat, matrix.T if transposed else matrix, bias)
        return result.reshape(*x.shape[:-1], outputs)

    def rows(self, ids: Tensor) -> Tensor:
        """``[..., J]``: the rows at ``ids [...]``; the matrix is built only if that is less work, and never kept."""
        unique, inverse = torch.unique(ids, return_inverse=True)
        if len(unique) and not 0 <= int(unique[0]) <= int(unique[-1]) < self.matrix_shape[0]:
            raise IndexError(f"row {int(unique[0])} or {int(unique[-1])} is not one of {self.matrix_shape[0]}")
        shapes = self._shapes()
        if len(unique) * contraction.rows_cost(shapes) > contraction.matrix_cost(shapes):
            return functional.embedding(ids, self._matrix())
        columns = self.matrix_shape[1]
        return functional.embedding(inverse, contraction.rows(list(self.cores), unique)[:, :columns])

    def _is_matrix_cheaper(self, batch: int, transposed: bool) -> bool:
        shapes = self._shapes()
        if transposed:
            shapes = [(left, j, i, right) for left, i, j, right in shapes]
        building = 0 if self._may_keep else contraction.matrix_cost(shapes)
        return building + batch * self.shape.numel() <= batch * contraction.apply_cost(shapes)

    def _shapes(self) -> list[tuple[int, int, int, int]]:
        return [tuple(core.shape) for core in self.cores]

    @staticmethod
    def _padded(cores: Sequence[Tensor]) -> int:
        columns = 1
        for core in cores:
            columns *= core.shape[2]
        return columns

    def extra_repr(self) -> str:
        rows, columns = self.matrix_shape
        bonds = [core.shape[3] for core in self.cores][:-1]
        return f"{rows} × {columns}, bonds {bonds}, central {self.central}"


class MPOLinear(nn.Module):
    """``y = x Wᵀ + b``, as `torch.nn.Linear`, with ``W [out, in]`` as cores."""

    def __init__(self, weight: MPOWeight, bias: Tensor | None = None):
        super().__init__()
        self.out_features, self.in_features = weight.matrix_shape
        self.weight = weight
        self.register_parameter("bias", _parameter(bias))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight(x, self.bias)


class MPOConv1D(nn.Module):
    """``y = x W + b``, as GPT-2's ``Conv1D``, with ``W [in, out]`` as cores."""

    def __init__(self, weight: MPOWeight, bias: Tensor | None = None):
        super().__init__()
        self.nx, self.nf = weight.matrix_shape
        self.weight = weight
        self.register_parameter("bias", _parameter(bias))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight(x, self.bias, transposed=True)


class MPOEmbedding(nn.Module):
    """``y = W[id]``, as `torch.nn.Embedding`, with ``W [vocabulary, features]`` as cores.

    The row of ``padding_idx`` is whatever the cores say; it can't be left out of training.
    """

    def __init__(self, weight: MPOWeight, padding_idx: int | None = None):
        super().__init__()
        self.num_embeddings, self.embedding_dim = weight.matrix_shape
        self.padding_idx = padding_idx
        self.weight = weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.weight.rows(ids)


def _parameter(tensor: Tensor | None) -> nn.Parameter | None:
    return tensor if tensor is None or isinstance(tensor, nn.Parameter) else nn.Parameter(tensor)
