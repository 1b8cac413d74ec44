"""`MPOMatrix`: the common base of weights that are made of operators or of integers.

The weight of a layer is a module whose parameters are the cores. So ``weight.cores.0`` is both the end of a key in the model's
state dict and the end of the entry's name in the checkpoint. Modules may share cores: the same `torch.nn.Parameter` is then in
several of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from . import gauge, prepacked
from .integers import IntegerArray
from .memory import has_room

if TYPE_CHECKING:
    from .mpo_weight import MPOWeight

Products = tuple[Callable[..., Tensor], tuple[Tensor, ...]]
"""A function such as `torch.nn.functional.linear`, and the matrices with which it multiplies rows, one after the other."""

CHAIN_OVERHEAD = 4
"""How much longer a multiplication takes in a chain of several sites than in a product of matrices."""
_KEPT_BATCHES = 64
"""For how many shapes of batches the matrices to multiply with are kept."""
_HALF_TRAFFIC = 16
_HALF_WORK = 4_000_000
"""In half precision, two factors are used only if they save `_HALF_WORK` multiplications against the matrix, where reading a
number counts as `_HALF_TRAFFIC` multiplications."""
_NOTHING = nullcontext()


class _Loaded:
    """A context that calls the hooks with which accelerate loads and unloads the parameters of modules."""

    def __init__(self, modules: list[nn.Module]):
        self.modules = modules

    def __enter__(self) -> None:
        for module in self.modules:
            module._hf_hook.pre_forward(module)

    def __exit__(self, *_: object) -> None:
        for module in self.modules:
            module._hf_hook.post_forward(module, None)


class MPOMatrix(nn.Module):
    """A matrix ``[I, J]`` made of matrix product operators (`MPOWeight`, `CompactMPOWeight`, `MPOBlockWeight`) or of integers.

    A product goes through the cores, through two factors or through the matrix, whichever is the least work for the batch. If no
    gradient is needed, the factors or the matrix are kept until a core changes. Writing to ``core.data`` is not noticed: call
    `clear_cache` afterwards.

    Parameters
    ----------
    shape
        ``(I, J)``.
    keeps_matrix
        whether the factors and the matrix may be kept in memory.

    Attributes
    ----------
    stand_in
        a matrix ``[I, J]`` that layers use instead, see `MixedRank`; None if there is none.
    """

    def __init__(self, shape: tuple[int, int], keeps_matrix: bool):
        super().__init__()
        self.matrix_shape = (int(shape[0]), int(shape[1]))
        self.keeps_matrix = keeps_matrix
        self.stand_in: Tensor | None = None
        self._kept: tuple[Any, dict[Any, Any]] | None = None
        self._routes: dict[Any, Any] = {}

    # What subclasses implement. Costs are numbers of multiplications.

    @property
    def operators(self) -> list[MPOWeight]:
        """The operators of the matrix."""
        raise NotImplementedError

    def built(self) -> Tensor:
        """Builds the matrix ``[I, J]``; differentiable in the cores."""
        raise NotImplementedError

    def build_cost(self) -> int:
        """The cost of `built`."""
        raise NotImplementedError

    def product(self, x: Tensor, transposed: bool) -> Tensor:
        """``x Wᵀ`` for ``x [batch, J]``; transposed, ``x W`` for ``x [batch, I]``. Goes through the cores."""
        raise NotImplementedError

    def product_cost(self, transposed: bool) -> int:
        """The cost of `product` for a batch of one."""
        raise NotImplementedError

    def factors(self) -> tuple[Tensor, Tensor] | None:
        """``up [I, r]`` and ``down [r, J]`` whose product is the matrix; None if it is not of low rank. Differentiable."""
        return None

    def factor_rank(self) -> int | None:
        """The r of `factors`; None if there are none."""
        return None

    def looked_up(self, ids: Tensor) -> Tensor:
        """The rows ``[n, J]`` at ``ids [n]``. Goes through the cores."""
        raise NotImplementedError

    def lookup_cost(self) -> int:
        """The cost of `looked_up` for one row."""
        raise NotImplementedError

    # What layers and models use

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
        """The arrays of the weight that stay integers."""
        return [module for module in self.modules() if isinstance(module, IntegerArray)]

    @property
    def auxiliary_cores(self) -> list[nn.Parameter]:
        """The auxiliary cores that are parameters, each once."""
        cores = [core for op in self.operators for k, core in enumerate(op.stored_cores) if k != op.central]
        return list(dict.fromkeys(core for core in cores if isinstance(core, nn.Parameter)))

    @property
    def inner_cores(self) -> list[nn.Parameter]:
        """The square cores ``[r, 1, 1, r]`` between the frames of low-rank operators that are parameters, each once."""
        deep = [op for op in self.operators if gauge.is_deep(op._shapes())]
        cores = [core for op in deep for core in op.stored_cores[1:-1]]
        return list(dict.fromkeys(core for core in cores if isinstance(core, nn.Parameter)))

    @property
    def central_cores(self) -> list[nn.Parameter]:
        """The central cores that are parameters, each once."""
        cores = [operator.stored_cores[operator.central] for operator in self.operators]
        return list(dict.fromkeys(core for core in cores if isinstance(core, nn.Parameter)))

    def matrix(self) -> Tensor:
        """The matrix ``[I, J]``; differentiable in the cores."""
        return self._kept_or_new("matrix", self.built)

    def _kept_or_new(self, name: str, build: Callable[[], Any]) -> Any:
        """The result of ``build``, which is kept under this name if that is allowed."""
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
        """A key that changes whenever a core changes or moves."""
        arrays = self._routes.get("integers")
        if arrays is None:
            arrays = self._routes["integers"] = self.integers
        key = [array.key() for array in arrays]
        try:
            return key + [(core.data_ptr(), core._version) for part in self._parts() for core in part.values()]
        except RuntimeError:  # tensors that were made in inference mode have no version
            return key + [(core.data_ptr(), 0) for part in self._parts() for core in part.values()]

    def _parts(self) -> list[dict[str, nn.Parameter]]:
        parts = self._routes.get("parts")
        if parts is None:
            parts = self._routes["parts"] = [module._parameters for module in self.modules() if module._parameters]
        return parts

    def _loaded(self) -> AbstractContextManager[Any]:
        """A context in which cores that accelerate has offloaded are in memory."""
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
        """Whether memory suffices to keep integers as floats too; decided once, until `clear_cache`."""
        if "room" not in self._routes:
            size = self.shape.numel() * self.dtype.itemsize
            self._routes["room"] = not self.integers or self._kept is not None or has_room(size, self.device)
        return self._routes["room"]

    def clear_cache(self) -> None:
        """Frees the factors and the matrix that are kept in memory."""
        self._kept = None
        self._routes = {}

    def train(self, mode: bool = True) -> MPOMatrix:
        self.clear_cache()
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_kept": None, "_routes": {}}

    def forward(self, x: Tensor, bias: Tensor | None = None, transposed: bool = False) -> Tensor:
        """``x Wᵀ + bias`` for ``x [..., J]``; transposed, ``x W + bias`` for ``x [..., I]``."""
        if self.stand_in is not None:
            return functional.linear(x, self.stand_in.T if transposed else self.stand_in, bias)
        kept = self._kept
        is_recorded = self.training or torch.is_grad_enabled() or torch.compiler.is_compiling()
        if kept is not None and not is_recorded and kept[0] == self._key():
            ready = kept[1].get((x.shape[:-1], transposed))  # known from an earlier batch of this shape, with the same cores
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
        """The matrices with which the rows of ``x`` are multiplied; they are kept if that is allowed."""

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
        """The rows ``[..., J]`` at ``ids [...]``. The matrix is built only if that is less work, and is never kept.

        Raises
        ------
        IndexError
            if an id is not a row of the matrix.
        """
        if self.stand_in is not None:
            return functional.embedding(ids, self.stand_in)
        with self._loaded():
            return self._rows(ids)

    def _rows(self, ids: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return self.looked_up(ids.reshape(-1)).reshape(*ids.shape, -1)
        unique, inverse = torch.unique(ids, return_inverse=True)
        if len(unique) and not 0 <= int(unique[0]) <= int(unique[-1]) < self.matrix_shape[0]:
            wrong = int(unique[0]) if int(unique[0]) < 0 else int(unique[-1])
            raise IndexError(f"there is no row {wrong}; the matrix has the rows 0 to {self.matrix_shape[0] - 1}")
        if len(unique) * self.lookup_cost() > self.build_cost():
            return functional.embedding(ids, self.built())
        return functional.embedding(inverse, self.looked_up(unique))

    def _route(self, batch: int, transposed: bool) -> Literal["product", "factors", "matrix"]:
        """The way to compute a product that is the least work for a batch."""
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


def _multiplied(x: Tensor, products: Products, bias: Tensor | None) -> Tensor:
    linear, matrices = products
    for matrix in matrices[:-1]:
        x = linear(x, matrix)
    return linear(x, matrices[-1], bias)
