"""`CompactMPOWeight`: a low-rank matrix in the gauge compact."""

from __future__ import annotations

import torch
from torch import Tensor

from .integers import IntegerArray
from .mpo_weight import MPOWeight, Range
from .side_basis import SideBasis


class CompactMPOWeight(MPOWeight):
    """A low-rank matrix, with two sites ``(I, 1) × (1, J)``, in the gauge compact: the auxiliary core without its identity.

    d of the n indices on the auxiliary side are pivots. At the pivots the result is that of the central core; at the other n − d
    indices it is a combination of these. A product takes d · (I + J − d) multiplications, fewer than with the matrix at any rank
    below full.

    Parameters
    ----------
    values
        the stored values of the auxiliary core: ``[I − d, d]`` if the second core is central, otherwise ``[d, J − d]``.
    pivots
        ``[d]``, ascending.
    central_core
        ``[d, 1, J, 1]`` if the second core is central, otherwise ``[1, I, 1, d]``.
    central
        the index of the central core, 0 or 1.
    keeps_matrix, row_basis, column_basis
        see `MPOWeight`.
    """

    def __init__(
        self,
        values: Tensor | IntegerArray,
        pivots: Tensor,
        central_core: Tensor | IntegerArray,
        central: int,
        keeps_matrix: bool = True,
        row_basis: SideBasis | None = None,
        column_basis: SideBasis | None = None,
    ):
        rest = values.shape[0] if central == 1 else values.shape[1]
        outer, inner = len(pivots) + rest, central_core.shape[2] if central == 1 else central_core.shape[1]
        cores = [values, central_core] if central == 1 else [central_core, values]
        super().__init__(
            cores, (outer, inner) if central == 1 else (inner, outer), central, keeps_matrix, row_basis, column_basis
        )
        is_rest = torch.ones(outer, dtype=torch.bool, device=pivots.device)
        is_rest[pivots] = False
        others = is_rest.nonzero()[:, 0]
        places = torch.argsort(torch.cat([pivots, others]))
        for name, indices in (("pivots", pivots), ("others", others), ("places", places)):
            self.register_buffer(name, indices.int(), persistent=False)  # int64 would take much beside cores of few bits

    def whole_cores(self) -> list[Tensor]:
        count, central = len(self.pivots), self.cores[self.central]
        identity = torch.eye(count, dtype=self.dtype, device=self.device)
        outer = torch.cat([identity, self._values])[self.places]
        return [outer[None, :, None], central] if self.central == 1 else [central, outer.T[:, None, :, None]]

    @property
    def _values(self) -> Tensor:
        """The values as ``[n − d, d]``, for either side."""
        return self.cores[0] if self.central == 1 else self.cores[1].T

    @property
    def _rows_are_outer(self) -> bool:
        return self.central == 0 and self.row_basis is None

    def _chain_product(self, x: Tensor, transposed: bool, rows: Range | None = None) -> Tensor:
        if transposed == (self.central == 1):  # the inputs are the pivoted side
            inner = x[:, self.pivots] + self._times_values(x[:, self.others], False)
            return self._times_central(inner, True, rows)
        inner = self._times_central(x, False, rows)
        return torch.cat([inner, self._times_values(inner, True)], -1)[:, self.places]

    def _times_values(self, x: Tensor, transposed: bool) -> Tensor:
        """``x V``, or transposed ``x Vᵀ``, where V is `_values`."""
        values = self.stored_cores[1 - self.central]
        if not isinstance(values, IntegerArray):
            return x @ (self._values.T if transposed else self._values)
        rows, columns = values.shape
        return values.product(x, rows, columns, transposed != (self.central == 1))

    def _times_central(self, x: Tensor, transposed: bool, rows: Range | None) -> Tensor:
        """``x C``, or transposed ``x Cᵀ``, where C is `_central_matrix` or a range of its rows."""
        central = self.stored_cores[self.central]
        if isinstance(central, IntegerArray) and rows is None:
            left, i, j, right = central.shape  # as [d, J], which is Cᵀ, or as [I, d]
            return central.product(x, left * i, j * right, transposed == (self.central == 1))
        matrix = self._central_matrix() if rows is None else self._central_matrix()[slice(*rows)]
        return x @ (matrix.T if transposed else matrix)

    def _central_matrix(self) -> Tensor:
        """The central core as a matrix ``[n', d]``, where n' is the size of the side that has no pivots."""
        central = self.cores[self.central]
        return central[:, 0, :, 0].T if self.central == 1 else central[0, :, 0]

    def product_cost(self, transposed: bool, rows: Range | None = None) -> int:
        count = self.matrix_shape[0] if rows is None or not self._rows_are_outer else rows[1] - rows[0]
        left_out = (self.matrix_shape[0] - count) * len(self.pivots)
        return sum(core.numel() for core in self.stored_cores) - left_out + self._basis_cost(1, 1)

    def _chain_rows(self, ids: Tensor) -> Tensor:
        if self.central == 0:
            inner = self._central_matrix()[ids]
            return torch.cat([inner, inner @ self._values.T], -1)[:, self.places]
        places, count = self.places[ids].long(), len(self.pivots)
        pivots, others = (places < count).nonzero()[:, 0], (places >= count).nonzero()[:, 0]
        inner = torch.zeros(len(ids), count, dtype=self.dtype, device=self.device)
        inner = inner.index_put((pivots, places[pivots]), inner.new_ones(())).index_put(
            (others,), self._values[places[others] - count]
        )
        return inner @ self._central_matrix().T

    def _shapes(self) -> list[tuple[int, int, int, int]]:
        rows, columns, count = *self.matrix_shape, len(self.pivots)
        return [(1, rows, 1, count), (count, 1, columns, 1)]
