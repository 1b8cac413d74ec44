"""`IntegerMatrix`: a dense matrix that stays integers."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from .integers import IntegerArray
from .mpo_matrix import MPOMatrix
from .mpo_weight import MPOWeight


class IntegerMatrix(MPOMatrix):
    """A dense matrix ``[I, J]`` that stays integers; it is not trained.

    Parameters
    ----------
    array
        the elements.
    keeps_matrix
        whether the matrix may be kept in memory as floats, see `MPOMatrix`.
    """

    def __init__(self, array: IntegerArray, keeps_matrix: bool = True):
        super().__init__((array.shape[0], array.shape[1]), keeps_matrix)
        self.array = array

    @property
    def operators(self) -> list[MPOWeight]:
        return []

    def built(self) -> Tensor:
        return self.array.values()

    def build_cost(self) -> int:
        return self.shape.numel()

    def product(self, x: Tensor, transposed: bool) -> Tensor:
        return self.array.product(x, *self.matrix_shape, transposed)

    def product_cost(self, transposed: bool) -> int:
        return self.shape.numel()

    def looked_up(self, ids: Tensor) -> Tensor:
        return self.array.selected(ids, self.matrix_shape[1])

    def lookup_cost(self) -> int:
        return self.matrix_shape[1]

    def _route(self, batch: int, transposed: bool) -> Literal["product", "factors", "matrix"]:
        return "matrix" if self._may_keep else "product"

    def extra_repr(self) -> str:
        return f"{self.matrix_shape[0]} × {self.matrix_shape[1]}, integers"
