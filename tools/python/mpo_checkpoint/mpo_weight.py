"""`MPOWeight`: a matrix as a chain of whole cores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from . import contraction
from .integers import IntegerArray, StoredCores
from .mpo_matrix import MPOMatrix
from .side_basis import SideBasis

Range = tuple[int, int]


class MPOWeight(MPOMatrix):
    """A matrix ``[I, J]`` as a chain of whole cores: an operator.

    Parameters
    ----------
    cores
        the cores ``[d, i, j, d']``.
    shape
        ``(I, J)``, at most ``∏ i`` and ``∏ j``.
    central
        the index of the central core.
    keeps_matrix
        whether the matrix may be kept in memory, see `MPOMatrix`.
    row_basis, column_basis
        the factors between the chain and the rows and columns of the matrix; None for the identity.

    Attributes
    ----------
    shares_cores
        whether another operator has one of its cores too.
    is_deepened
        whether a square core was put between the two stored ones for training; `save` multiplies it into one of them.
    """

    def __init__(
        self,
        cores: Sequence[Tensor | IntegerArray],
        shape: tuple[int, int],
        central: int,
        keeps_matrix: bool = True,
        row_basis: SideBasis | None = None,
        column_basis: SideBasis | None = None,
    ):
        super().__init__(shape, keeps_matrix)
        kept = [core if isinstance(core, (nn.Parameter, IntegerArray)) else nn.Parameter(core) for core in cores]
        has_integers = any(isinstance(core, IntegerArray) for core in kept)
        self.cores: Any = StoredCores(kept) if has_integers else nn.ParameterList(kept)
        self.central = central
        self.row_basis, self.column_basis = row_basis, column_basis
        self.shares_cores = False
        self.is_deepened = False

    @property
    def operators(self) -> list[MPOWeight]:
        return [self]

    @property
    def central_core(self) -> nn.Parameter:
        return self.cores[self.central]

    @property
    def stored_cores(self) -> list[nn.Parameter | IntegerArray]:
        """The cores as the model holds them: parameters, or integers."""
        cores = self.cores
        return [cores.stored(k) for k in range(len(cores))] if isinstance(cores, StoredCores) else list(cores)

    def whole_cores(self) -> list[Tensor]:
        """The whole cores ``[d, i, j, d']`` as floats, with the identities that are not stored."""
        return list(self.cores)

    def built(self) -> Tensor:
        rows, columns = self.matrix_shape
        matrix = contraction.matrix(self.whole_cores())[:rows, :columns]
        if self.row_basis is not None:
            matrix = self.row_basis.leave(matrix.T).T
        return (matrix if self.column_basis is None else self.column_basis.leave(matrix)).contiguous()

    def factor_rank(self) -> int | None:
        shapes = self._shapes()
        is_plain = self.row_basis is None and self.column_basis is None
        is_whole = (shapes[0][1], shapes[-1][2]) == self.matrix_shape
        if is_plain and is_whole and all(j == 1 for _, _, j, _ in shapes[:-1]) and all(i == 1 for _, i, _, _ in shapes[1:]):
            return min(right for _, _, _, right in shapes[:-1])
        return None

    def factors(self) -> tuple[Tensor, Tensor]:
        first, *inner, last = self.whole_cores()
        up, down = first.reshape(first.shape[1], -1), last.reshape(-1, last.shape[2])
        for core in inner:
            up = up @ core.reshape(core.shape[0], -1)
        return up, down

    def build_cost(self) -> int:
        rows, columns = self.matrix_shape
        return contraction.matrix_cost(self._shapes()) + self._basis_cost(columns, rows)

    def product(self, x: Tensor, transposed: bool, rows: Range | None = None) -> Tensor:
        """As `MPOMatrix.product`; if ``rows`` is given, only with the rows ``rows[0] ≤ i < rows[1]`` of the matrix."""
        is_cut = rows is not None and not self._rows_are_outer
        if is_cut and transposed:
            x = functional.pad(x, (rows[0], self.matrix_shape[0] - rows[1]))
        before, after = (self.row_basis, self.column_basis) if transposed else (self.column_basis, self.row_basis)
        x = x if before is None else before.enter(x)
        x = self._chain_product(x, transposed, None if is_cut else rows)
        x = x if after is None else after.leave(x)
        return x[:, slice(*rows)] if is_cut and not transposed else x

    def product_cost(self, transposed: bool, rows: Range | None = None) -> int:
        shapes = self._shapes()
        if rows is not None and self._rows_are_outer:
            shapes[0] = (1, rows[1] - rows[0], *shapes[0][2:])
        return contraction.apply_cost(_turned(shapes, transposed)) + self._basis_cost(1, 1)

    @property
    def _rows_are_outer(self) -> bool:
        """Whether a row of the matrix is a slice of the first core, so that a range of rows takes only part of the work."""
        return self.row_basis is None and all(i == 1 for _, i, _, _ in self._shapes()[1:])

    def looked_up(self, ids: Tensor) -> Tensor:
        basis, scale = self.row_basis, None if self.row_basis is None else self.row_basis.scale
        if basis is not None and basis.basis is not None:
            vectors = basis.basis.value[ids]
            rows = self._chain_product(vectors if scale is None else vectors * scale.value, transposed=True)
        else:
            places = ids if basis is None or basis.permutation is None else basis.permutation.value[ids]
            rows = self._chain_rows(places)
            rows = rows if scale is None else scale.value[places, None] * rows
        return rows if self.column_basis is None else self.column_basis.leave(rows)

    def lookup_cost(self) -> int:
        is_product = self.row_basis is not None and self.row_basis.basis is not None
        cost = (
            contraction.apply_cost(_turned(self._shapes(), True))
            if is_product
            else contraction.rows_cost(self._shapes())
        )
        return cost + self._basis_cost(0, 1)

    def _chain_product(self, x: Tensor, transposed: bool, rows: Range | None = None) -> Tensor:
        """As `product`, without the bases; ``rows`` is allowed only if rows are slices of the first core."""
        count, columns = self.matrix_shape if rows is None else (rows[1] - rows[0], self.matrix_shape[1])
        inputs, outputs = (count, columns) if transposed else (columns, count)
        cores = list(self.cores)
        if rows is not None:
            cores[0] = cores[0][:, slice(*rows)]
        cores = contraction.transposed(cores) if transposed else cores
        padded = 1
        for core in cores:
            padded *= core.shape[2]
        return contraction.apply(cores, functional.pad(x, (0, padded - inputs)))[:, :outputs]

    def _chain_rows(self, ids: Tensor) -> Tensor:
        return contraction.rows(list(self.cores), ids)[:, : self.matrix_shape[1]]

    def _basis_cost(self, row_vectors: int, column_vectors: int) -> int:
        sides = (self.row_basis, row_vectors), (self.column_basis, column_vectors)
        return sum(basis.cost * count for basis, count in sides if basis is not None)

    def _shapes(self) -> list[tuple[int, int, int, int]]:
        return [tuple(core.shape) for core in self.stored_cores]

    def extra_repr(self) -> str:
        rows, columns = self.matrix_shape
        return f"{rows} × {columns}, bonds {[shape[3] for shape in self._shapes()][:-1]}, central {self.central}"


def _turned(shapes: contraction.Shapes, transposed: bool) -> contraction.Shapes:
    return [(left, j, i, right) for left, i, j, right in shapes] if transposed else shapes
