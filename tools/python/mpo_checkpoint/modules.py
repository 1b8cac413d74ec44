"""Layers whose weight is made of matrix product operators.

The weight of a layer is a module with the cores as its parameters, so that ``weight.cores.0`` is both the key in a
model's state dict and the end of the entry's name in the checkpoint. Modules may share cores: one `torch.nn.Parameter` in
several places.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from . import contraction, gauge, prepacked
from .integers import IntegerArray, StoredCores
from .memory import has_room
from .records import Term

Range = tuple[int, int]
Products = tuple[Callable[..., Tensor], tuple[Tensor, ...]]
"""A product as `torch.nn.functional.linear` computes it, and the matrices that rows are multiplied with one after the other."""

CHAIN_OVERHEAD = 4
"""How much longer a multiplication of a chain of several sites takes than one of a product of matrices."""


class Constant(nn.Module):
    """A tensor that moves with the model and is neither trained nor in its state dict; modules may share it."""

    def __init__(self, value: Tensor):
        super().__init__()
        self.register_buffer("value", value, persistent=False)


class SideBasis(nn.Module):
    """What stands between a side of a matrix, of size n, and its chain: ``U D`` in ``U_r D_r C D_c U_cᵀ``; frozen.

    Parameters
    ----------
    basis
        ``U [n, n]``, orthogonal.
    permutation
        instead of it, integers p ``[n]``: row a of ``U C`` is row ``p[a]`` of ``C``.
    scale
        the diagonal of ``D [n]``.
    """

    def __init__(
        self, basis: Constant | None = None, permutation: Constant | None = None, scale: Constant | None = None
    ):
        super().__init__()
        self.basis, self.permutation, self.scale = basis, permutation, scale

    @property
    def cost(self) -> int:
        """Multiplications for one vector."""
        return sum(part.value.numel() for part in (self.basis, self.scale) if part is not None)

    def enter(self, x: Tensor) -> Tensor:
        """``x U D`` of rows ``x [..., n]``: from the side to the chain."""
        if self.permutation is not None:
            x = x[..., torch.argsort(self.permutation.value)]
        if self.basis is not None:
            x = x @ self.basis.value
        return x if self.scale is None else x * self.scale.value

    def leave(self, x: Tensor) -> Tensor:
        """``x D Uᵀ`` of rows ``x [..., n]``: from the chain to the side."""
        if self.scale is not None:
            x = x * self.scale.value
        if self.basis is not None:
            x = x @ self.basis.value.T
        return x if self.permutation is None else x[..., self.permutation.value]


_KEPT_BATCHES = 64
"""How many shapes of batches are remembered with the way they went."""
_HALF_TRAFFIC = 16
_HALF_WORK = 4_000_000
"""In half precision a second product must save so many multiplications, reading a number counted as so many of them."""
_NOTHING = nullcontext()


class _Loaded:
    """Calls the hooks by which accelerate moves the parameters of modules."""

    def __init__(self, modules: list[nn.Module]):
        self.modules = modules

    def __enter__(self) -> None:
        for module in self.modules:
            module._hf_hook.pre_forward(module)

    def __exit__(self, *_: object) -> None:
        for module in self.modules:
            module._hf_hook.post_forward(module, None)


class MPOMatrix(nn.Module):
    """A matrix ``[I, J]`` made of matrix product operators: `MPOWeight`, `CompactMPOWeight` or `MPOBlockWeight`.

    A product is computed through the cores, with two factors or with the matrix, whichever is less work for the batch at
    hand. Where no gradient is wanted, factors and the matrix are kept once they were built, until a core changes (what is
    written to ``core.data`` goes unnoticed: call `clear_cache`).

    Parameters
    ----------
    shape
        ``(I, J)``.
    keeps_matrix
        whether factors and the matrix may be kept.

    Attributes
    ----------
    stand_in
        a matrix ``[I, J]`` that layers use instead, see `MixedRank`; None for none.
    """

    def __init__(self, shape: tuple[int, int], keeps_matrix: bool):
        super().__init__()
        self.matrix_shape = (int(shape[0]), int(shape[1]))
        self.keeps_matrix = keeps_matrix
        self.stand_in: Tensor | None = None
        self._kept: tuple[Any, dict[Any, Any]] | None = None
        self._routes: dict[Any, Any] = {}

    # What a kind of weight says of itself; costs are in multiplications.

    @property
    def operators(self) -> list[MPOWeight]:
        """The operators it is made of."""
        raise NotImplementedError

    def built(self) -> Tensor:
        """The matrix ``[I, J]``, anew; differentiable in the cores."""
        raise NotImplementedError

    def build_cost(self) -> int:
        raise NotImplementedError

    def product(self, x: Tensor, transposed: bool) -> Tensor:
        """``x Wᵀ`` of ``x [batch, J]``, or ``x W`` of ``x [batch, I]``, through the cores."""
        raise NotImplementedError

    def product_cost(self, transposed: bool) -> int:
        """Of `product` for a batch of one."""
        raise NotImplementedError

    def factors(self) -> tuple[Tensor, Tensor] | None:
        """``up [I, r]`` and ``down [r, J]`` whose product the matrix is, if it is one of low rank; differentiable."""
        return None

    def factor_rank(self) -> int | None:
        """The r of `factors`."""
        return None

    def looked_up(self, ids: Tensor) -> Tensor:
        """The rows ``[n, J]`` at ``ids [n]``, through the cores."""
        raise NotImplementedError

    def lookup_cost(self) -> int:
        """Of `looked_up` for one row."""
        raise NotImplementedError

    # What layers and models ask

    @property
    def shape(self) -> torch.Size:
        return torch.Size(self.matrix_shape)

    @property
    def dtype(self) -> torch.dtype:
        return self._first.dtype

    @property
    def device(self) -> torch.device:
        return self._first.device

    @property
    def _first(self) -> Tensor | IntegerArray:
        parameter = next(self.parameters(), None)
        return self.integers[0] if parameter is None else parameter

    @property
    def integers(self) -> list[IntegerArray]:
        """What stays integers of it."""
        return [module for module in self.modules() if isinstance(module, IntegerArray)]

    @property
    def auxiliary_cores(self) -> list[nn.Parameter]:
        """Those that are parameters, each once."""
        cores = [core for op in self.operators for k, core in enumerate(op.stored_cores) if k != op.central]
        return list(dict.fromkeys(core for core in cores if isinstance(core, nn.Parameter)))

    @property
    def inner_cores(self) -> list[nn.Parameter]:
        """Square cores ``[r, 1, 1, r]`` between the frames of low-rank operators, each once."""
        deep = [op for op in self.operators if gauge.is_deep(op._shapes())]
        cores = [core for op in deep for core in op.stored_cores[1:-1]]
        return list(dict.fromkeys(core for core in cores if isinstance(core, nn.Parameter)))

    @property
    def central_cores(self) -> list[nn.Parameter]:
        """Those that are parameters, each once."""
        cores = [operator.stored_cores[operator.central] for operator in self.operators]
        return list(dict.fromkeys(core for core in cores if isinstance(core, nn.Parameter)))

    def matrix(self) -> Tensor:
        """``[I, J]``; differentiable in the cores."""
        return self._kept_or_new("matrix", self.built)

    def _kept_or_new(self, name: str, build: Callable[[], Any]) -> Any:
        """What ``build`` makes; kept where it may be."""
        if not self._may_keep:
            return build()
        key = self._key()
        if self._kept is None or self._kept[0] != key:
            self._kept = key, {}
        values = self._kept[1]
        if name not in values:
            with torch.inference_mode(False), torch.no_grad():
                values[name] = build()
        return values[name]

    def _key(self) -> list[tuple[Any, ...]]:
        """Another one once a core was changed, or moved."""
        arrays = self._routes.get("integers")
        if arrays is None:
            arrays = self._routes["integers"] = self.integers
        key = [array.key() for array in arrays]
        try:
            return key + [(core.data_ptr(), core._version) for part in self._parts() for core in part.values()]
        except RuntimeError:  # what was made in inference mode has no version
            return key + [(core.data_ptr(), 0) for part in self._parts() for core in part.values()]

    def _parts(self) -> list[dict[str, nn.Parameter]]:
        parts = self._routes.get("parts")
        if parts is None:
            parts = self._routes["parts"] = [module._parameters for module in self.modules() if module._parameters]
        return parts

    def _loaded(self) -> AbstractContextManager[Any]:
        """Where accelerate keeps cores elsewhere than in memory: they are there within."""
        if "offloaded" not in self._routes:
            self._routes["offloaded"] = [module for module in self.modules() if hasattr(module, "_hf_hook")]
        return _Loaded(self._routes["offloaded"]) if self._routes["offloaded"] else _NOTHING

    @property
    def _may_keep(self) -> bool:
        if not self.keeps_matrix or torch.compiler.is_compiling() or self._routes.get("offloaded"):
            return False
        if not self._has_room:
            return False
        is_recorded = self.training or torch.is_grad_enabled()
        return not (is_recorded and any(core.requires_grad for part in self._parts() for core in part.values()))

    @property
    def _has_room(self) -> bool:
        """Whether memory allows to keep as floats what is stored as integers; asked once, until `clear_cache`."""
        if "room" not in self._routes:
            size = self.shape.numel() * self.dtype.itemsize
            self._routes["room"] = not self.integers or self._kept is not None or has_room(size, self.device)
        return self._routes["room"]

    def clear_cache(self) -> None:
        """Forgets what is kept."""
        self._kept = None
        self._routes = {}

    def train(self, mode: bool = True) -> MPOMatrix:
        self.clear_cache()
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_kept": None, "_routes": {}}

    def forward(self, x: Tensor, bias: Tensor | None = None, transposed: bool = False) -> Tensor:
        """``x Wᵀ + bias`` of ``x [..., J]``; transposed, ``x W + bias`` of ``x [..., I]``."""
        if self.stand_in is not None:
            return functional.linear(x, self.stand_in.T if transposed else self.stand_in, bias)
        kept = self._kept
        is_recorded = self.training or torch.is_grad_enabled() or torch.compiler.is_compiling()
        if kept is not None and not is_recorded and kept[0] == self._key():
            ready = kept[1].get((x.shape[:-1], transposed))  # the same batch as before, the same cores
            if ready is not None and (ready[0] is functional.linear or prepacked.is_usable(x)):
                return _multiplied(x, ready, bias)
        with self._loaded():
            return self._forward(x, bias, transposed)

    def _forward(self, x: Tensor, bias: Tensor | None, transposed: bool) -> Tensor:
        inputs, outputs = self.matrix_shape if transposed else self.matrix_shape[::-1]
        route = self._route(x.numel() // inputs, transposed)
        if route == "product":
            result = self.product(x.reshape(-1, inputs), transposed)
            result = result if bias is None else result + bias
            return result.reshape(*x.shape[:-1], outputs)
        products = self._products(x, route, transposed)
        if self._may_keep and self._kept is not None:
            key, values = self._kept
            if len(values) > _KEPT_BATCHES:
                self._kept = key, values = key, {name: value for name, value in values.items() if isinstance(name, str)}
            values[x.shape[:-1], transposed] = products
        return _multiplied(x, products, bias)

    def _products(self, x: Tensor, route: Literal["factors", "matrix"], transposed: bool) -> Products:
        """What the rows of ``x`` are multiplied with; kept where it may be."""

        def in_turn(chain: Sequence[Tensor]) -> tuple[Tensor, ...]:
            return tuple(matrix.T for matrix in chain) if transposed else tuple(reversed(chain))

        if self._may_keep and not torch.is_grad_enabled() and self.dtype is x.dtype and prepacked.is_usable(x):

            def packed() -> tuple[Tensor, ...]:
                chain = self.factors() if route == "factors" else (self.built(),)
                return tuple(prepacked.packed(matrix) for matrix in in_turn(chain))

            return prepacked.linear, self._kept_or_new(f"{route}, prepacked{', transposed' * transposed}", packed)
        chain = self._kept_or_new("factors", self.factors) if route == "factors" else (self.matrix(),)
        return functional.linear, in_turn(chain)

    def rows(self, ids: Tensor) -> Tensor:
        """``[..., J]``: the rows at ``ids [...]``; the matrix is built only if that is less work, and never kept."""
        if self.stand_in is not None:
            return functional.embedding(ids, self.stand_in)
        with self._loaded():
            return self._rows(ids)

    def _rows(self, ids: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return self.looked_up(ids.reshape(-1)).reshape(*ids.shape, -1)
        unique, inverse = torch.unique(ids, return_inverse=True)
        if len(unique) and not 0 <= int(unique[0]) <= int(unique[-1]) < self.matrix_shape[0]:
            raise IndexError(f"row {int(unique[0])} or {int(unique[-1])} is not one of {self.matrix_shape[0]}")
        if len(unique) * self.lookup_cost() > self.build_cost():
            return functional.embedding(ids, self.built())
        return functional.embedding(inverse, self.looked_up(unique))

    def _route(self, batch: int, transposed: bool) -> Literal["product", "factors", "matrix"]:
        """The way that is the least work for a batch."""
        costs = self._routes.get(transposed)
        if costs is None:
            rank, dense = self.factor_rank(), self.shape.numel()
            factors = None if rank is None else rank * sum(self.matrix_shape)
            product = self.product_cost(transposed) * (1 if factors else CHAIN_OVERHEAD)
            costs = self._routes[transposed] = product, factors, dense, self.build_cost()
        product, factors, dense, building = costs
        may_keep = self._may_keep
        if factors is not None and factors <= dense and (may_keep or factors <= product):
            is_small = may_keep and self.dtype.itemsize == 2 and (batch + _HALF_TRAFFIC) * (dense - factors) < _HALF_WORK
            return "matrix" if is_small else "factors"
        if (0 if may_keep else building) + batch * dense <= batch * product or (may_keep and factors is not None):
            return "matrix"
        return "product"


class MPOWeight(MPOMatrix):
    """A matrix ``[I, J]`` as a chain of whole cores: an operator.

    Parameters
    ----------
    cores
        ``[d, i, j, d']``.
    shape
        ``(I, J)``, not larger than the products of the factors.
    central
        index of the central core.
    keeps_matrix
        whether the matrix may be kept, see `MPOMatrix`.
    row_basis, column_basis
        what stands between the chain and the sides of the matrix.

    Attributes
    ----------
    shares_cores
        whether another operator has a core of it.
    is_deepened
        whether a square core stands between two that are stored as they are, until `save` multiplies it in.
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
        """The cores as they are kept: parameters, or integers."""
        cores = self.cores
        return [cores.stored(k) for k in range(len(cores))] if isinstance(cores, StoredCores) else list(cores)

    def whole_cores(self) -> list[Tensor]:
        """``[d, i, j, d']``."""
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
        """As `MPOMatrix.product`, but with the rows ``rows[0] ≤ i < rows[1]`` of the matrix only, if they are given."""
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
        """Whether a row of the matrix is a slice of the first core, so that a range of rows takes a part of the work."""
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
        """`product` without the bases; ``rows`` only where they are slices of the first core."""
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


class CompactMPOWeight(MPOWeight):
    """A low-rank matrix, two sites ``(I, 1) × (1, J)``, in the gauge compact: the auxiliary core without its identity.

    Of the auxiliary side's n elements d are pivots. Outputs there are those of the central core, the n − d others are
    combinations of them: d · (I + J − d) multiplications for a product, fewer than with the matrix at any rank.

    Parameters
    ----------
    values
        of the auxiliary core: ``[I − d, d]`` where the second core is central, ``[d, J − d]`` otherwise.
    pivots
        ``[d]``, ascending.
    central_core
        ``[d, 1, J, 1]``, or ``[1, I, 1, d]``.
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
            self.register_buffer(name, indices.int(), persistent=False)  # beside few bits, eight bytes would be many

    def whole_cores(self) -> list[Tensor]:
        count, central = len(self.pivots), self.cores[self.central]
        identity = torch.eye(count, dtype=self.dtype, device=self.device)
        outer = torch.cat([identity, self._values])[self.places]
        return [outer[None, :, None], central] if self.central == 1 else [central, outer.T[:, None, :, None]]

    @property
    def _values(self) -> Tensor:
        """``[n − d, d]``, on either side."""
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
        """``x V`` or ``x Vᵀ`` of `_values`."""
        values = self.stored_cores[1 - self.central]
        if not isinstance(values, IntegerArray):
            return x @ (self._values.T if transposed else self._values)
        rows, columns = values.shape
        return values.product(x, rows, columns, transposed != (self.central == 1))

    def _times_central(self, x: Tensor, transposed: bool, rows: Range | None) -> Tensor:
        """``x C`` or ``x Cᵀ`` of `_central_matrix`, or of a range of its rows."""
        central = self.stored_cores[self.central]
        if isinstance(central, IntegerArray) and rows is None:
            left, i, j, right = central.shape  # as [d, J], which is Cᵀ, or as [I, d]
            return central.product(x, left * i, j * right, transposed == (self.central == 1))
        matrix = self._central_matrix() if rows is None else self._central_matrix()[slice(*rows)]
        return x @ (matrix.T if transposed else matrix)

    def _central_matrix(self) -> Tensor:
        """``[inner side, d]``."""
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


class IntegerMatrix(MPOMatrix):
    """A dense matrix ``[I, J]`` that stays integers, in the place of one made of operators; it is not trained.

    Parameters
    ----------
    array
        its elements.
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


class MPOBlockWeight(MPOMatrix):
    """A matrix ``[I, J]`` of blocks, stacked along the rows; a block is a sum of ranges of operators.

    Parameters
    ----------
    operators
        by name; weights may share them.
    blocks
        each a list of terms that are added.
    """

    def __init__(self, operators: dict[str, MPOWeight], blocks: Sequence[Sequence[Term]], keeps_matrix: bool = True):
        super().__init__((sum(block[0].shape[0] for block in blocks), blocks[0][0].shape[1]), keeps_matrix)
        self._names = list(operators)
        self.parts = nn.ModuleList(operators.values())
        self.blocks = [[(self._names.index(term.operator), term) for term in block] for block in blocks]

    @property
    def operators(self) -> list[MPOWeight]:
        return list(self.parts)

    def built(self) -> Tensor:
        matrices = [part.built() for part in self.parts]
        return torch.cat(
            [sum(matrices[k][slice(*t.rows), slice(*t.columns)] for k, t in block) for block in self.blocks]
        )

    def factor_rank(self) -> int | None:
        ranks = [self.parts[k].factor_rank() for k, _ in self.blocks[0]]
        return sum(r for r in ranks if r is not None) if len(self.blocks) == 1 and None not in ranks else None

    def factors(self) -> tuple[Tensor, Tensor]:
        terms = [(self.parts[k].factors(), term) for k, term in self.blocks[0]]
        ups = [up[slice(*term.rows)] for (up, _), term in terms]
        downs = [down[:, slice(*term.columns)] for (_, down), term in terms]
        return (ups[0], downs[0]) if len(terms) == 1 else (torch.cat(ups, 1), torch.cat(downs, 0))

    def build_cost(self) -> int:
        return sum(part.build_cost() for part in self.parts)

    def product(self, x: Tensor, transposed: bool) -> Tensor:
        sizes = [block[0][1].shape[0] for block in self.blocks]
        inputs = x.split(sizes, -1) if transposed else [x] * len(sizes)
        results = []
        for part, block in zip(inputs, self.blocks):
            terms = [self._term_product(self.parts[k], term, part, transposed) for k, term in block]
            results.append(sum(terms[1:], start=terms[0]))
        return sum(results[1:], start=results[0]) if transposed else torch.cat(results, -1)

    @staticmethod
    def _term_product(operator: MPOWeight, term: Term, x: Tensor, transposed: bool) -> Tensor:
        begin, end = term.columns
        if transposed:
            return operator.product(x, True, term.rows)[:, begin:end]
        return operator.product(functional.pad(x, (begin, operator.matrix_shape[1] - end)), False, term.rows)

    def product_cost(self, transposed: bool) -> int:
        return sum(self.parts[k].product_cost(transposed, term.rows) for block in self.blocks for k, term in block)

    def looked_up(self, ids: Tensor) -> Tensor:
        result = torch.zeros(len(ids), self.matrix_shape[1], dtype=self.dtype, device=self.device)
        start = 0
        for block in self.blocks:
            size = block[0][1].shape[0]
            here = ((ids >= start) & (ids < start + size)).nonzero()[:, 0]
            for k, term in block:
                rows = self.parts[k].looked_up(ids[here] - start + term.rows[0])
                result = result.index_add(0, here, rows[:, slice(*term.columns)])
            start += size
        return result

    def lookup_cost(self) -> int:
        return max(sum(self.parts[k].lookup_cost() for k, _ in block) for block in self.blocks)

    def extra_repr(self) -> str:
        return f"{self.matrix_shape[0]} × {self.matrix_shape[1]}, blocks {len(self.blocks)}"


class MPOLinear(nn.Module):
    """``y = x Wᵀ + b``, as `torch.nn.Linear`, with ``W [out, in]`` made of operators.

    Parameters
    ----------
    weight
        ``W``.
    bias
        ``b [out]``; None for none.
    """

    def __init__(self, weight: MPOMatrix, bias: Tensor | None = None):
        super().__init__()
        self.out_features, self.in_features = weight.matrix_shape
        self.weight = weight
        self.register_parameter("bias", _parameter(bias))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight(x, self.bias)

    def parametrized(self, bound: float | None = None) -> MPOLinear:
        """Trains the layer on the manifold of the gauge spectral from now on, see `mpo_checkpoint.parametrized`."""
        from .spectral import parametrized

        return parametrized(self, bound)


class MPOConv1D(nn.Module):
    """``y = x W + b``, as GPT-2's ``Conv1D``, with ``W [in, out]`` made of operators.

    Parameters
    ----------
    weight
        ``W``.
    bias
        ``b [out]``; None for none.
    """

    def __init__(self, weight: MPOMatrix, bias: Tensor | None = None):
        super().__init__()
        self.nx, self.nf = weight.matrix_shape
        self.weight = weight
        self.register_parameter("bias", _parameter(bias))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight(x, self.bias, transposed=True)


class MPOEmbedding(nn.Module):
    """``y = W[id]``, as `torch.nn.Embedding`, with ``W [vocabulary, features]`` made of operators.

    The row of ``padding_idx`` is whatever the cores say; it can't be left out of training.

    Parameters
    ----------
    weight
        ``W``.
    padding_idx
        the index of the padding; None for none.
    """

    def __init__(self, weight: MPOMatrix, padding_idx: int | None = None):
        super().__init__()
        self.num_embeddings, self.embedding_dim = weight.matrix_shape
        self.padding_idx = padding_idx
        self.weight = weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.weight.rows(ids)


def _multiplied(x: Tensor, products: Products, bias: Tensor | None) -> Tensor:
    linear, matrices = products
    for matrix in matrices[:-1]:
        x = linear(x, matrix)
    return linear(x, matrices[-1], bias)


def _turned(shapes: contraction.Shapes, transposed: bool) -> contraction.Shapes:
    return [(left, j, i, right) for left, i, j, right in shapes] if transposed else shapes


def _parameter(tensor: Tensor | None) -> nn.Parameter | None:
    return tensor if tensor is None or isinstance(tensor, nn.Parameter) else nn.Parameter(tensor)
