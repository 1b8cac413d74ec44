"""Arrays of a loaded model that stay integers with scales, as they are stored, and products with them."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from . import grouped

_BLOCK = 1 << 20
"""How many elements are decoded to floats at a time in a product."""


class IntegerArray(nn.Module):
    """An array as integers with scales. Both are buffers: they are not trained, and a cast of the model does not change them.

    Subclasses decode the integers. The decoded values have the dtype of the model.

    Parameters
    ----------
    codes
        the integers as they are stored.
    scales
        the scales as they are stored; the buffer has their bytes, so that ``model.half()`` does not change them.
    shape
        the shape of the values.
    like
        a tensor with the dtype and the device of the decoded values.
    pivots
        the ascending pivots of a core whose identity is not stored; None for any other array.
    side, whole_shape
        only with pivots: their side, ``"left"`` or ``"right"``, and the shape of the whole core.
    """

    def __init__(
        self,
        codes: Tensor,
        scales: Tensor,
        shape: tuple[int, ...],
        like: Tensor,
        pivots: Tensor | None = None,
        side: str | None = None,
        whole_shape: tuple[int, ...] | None = None,
    ):
        super().__init__()
        self.register_buffer("codes", codes.to(like.device))
        self.register_buffer("scale_bytes", scales.contiguous().view(torch.uint8).to(like.device))
        self.register_buffer("pivots", None if pivots is None else pivots.int().to(like.device), persistent=False)
        self.register_buffer("_like", torch.empty(0, dtype=like.dtype, device=like.device), persistent=False)
        self._scale_dtype = scales.dtype
        self.value_shape, self.side = tuple(shape), side
        self.whole_shape = tuple(whole_shape or shape)

    @property
    def shape(self) -> torch.Size:
        """The shape of the whole array, with the identity that is not stored."""
        return torch.Size(self.whole_shape)

    @property
    def dtype(self) -> torch.dtype:
        return self._like.dtype

    @property
    def device(self) -> torch.device:
        return self.codes.device

    @property
    def scales(self) -> Tensor:
        return self.scale_bytes.view(self._scale_dtype)

    def numel(self) -> int:
        """The number of stored values."""
        return prod(self.value_shape)

    def key(self) -> tuple[Any, ...]:
        """A key that changes whenever the values, their place in memory or their dtype change."""
        return self.codes.data_ptr(), _version(self.codes), _version(self.scale_bytes), self._like.dtype

    def rows(self, begin: int, end: int, columns: int) -> Tensor:
        """Rows ``begin ≤ i < end`` of the values as a matrix with this number of columns."""
        raise NotImplementedError

    def is_in_rows(self, columns: int) -> bool:
        """Whether single rows can be decoded of the values as a matrix with this number of columns."""
        raise NotImplementedError

    def values(self) -> Tensor:
        """All values, of ``value_shape``."""
        columns = self.value_shape[-1]
        if not self.numel():
            return torch.zeros(self.value_shape, dtype=self.dtype, device=self.device)
        return self.rows(0, self.numel() // columns, columns).reshape(self.value_shape)

    def dense(self) -> Tensor:
        """The whole array, decoded, with the identity that is not stored."""
        values = self.values()
        if self.pivots is None:
            return values
        matrix = values if self.side == "left" else values.T
        count = len(self.pivots)
        result = values.new_zeros(matrix.shape[0] + count, count)
        is_rest = torch.ones(len(result), dtype=torch.bool, device=values.device)
        pivots = self.pivots.long()
        is_rest[pivots] = False
        result[pivots, torch.arange(count, device=values.device)] = 1
        result[is_rest] = matrix
        return (result if self.side == "left" else result.T).reshape(self.whole_shape)

    def blocks(self, rows: int, columns: int) -> Iterator[tuple[int, int, Tensor]]:
        """The values as a matrix ``[rows, columns]``, some rows at a time: first row, end, and the rows."""
        if not self.is_in_rows(columns):
            yield 0, rows, self.values().reshape(rows, columns)
            return
        step = max(1, _BLOCK // columns)
        for begin in range(0, rows, step):
            end = min(begin + step, rows)
            yield begin, end, self.rows(begin, end, columns)

    def product(self, x: Tensor, rows: int, columns: int, transposed: bool) -> Tensor:
        """``x Mᵀ`` for ``x [batch, columns]``; transposed, ``x M`` for ``x [batch, rows]``. M is the values as ``[rows, columns]``."""
        if torch.is_grad_enabled() and x.requires_grad:
            return _Product.apply(x, self, rows, columns, transposed)
        return self.multiplied(x, rows, columns, transposed)

    def multiplied(self, x: Tensor, rows: int, columns: int, transposed: bool) -> Tensor:
        """As `product`, but not differentiable."""
        if not transposed:
            parts = [x @ block.T for _, _, block in self.blocks(rows, columns)]
            return parts[0] if len(parts) == 1 else torch.cat(parts, -1)
        result = x.new_zeros(len(x), columns)
        for begin, end, block in self.blocks(rows, columns):
            result += x[:, begin:end] @ block
        return result

    def selected(self, ids: Tensor, columns: int) -> Tensor:
        """The rows ``[n, columns]`` at ``ids [n]`` of the values as a matrix with this number of columns."""
        if self.is_in_rows(columns):
            return self._selected(ids, columns)
        return self.values().reshape(-1, columns)[ids]

    def _selected(self, ids: Tensor, columns: int) -> Tensor:
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f"{list(self.whole_shape)}, {self.codes.numel() + self.scale_bytes.numel()} bytes"


class GroupedArray(IntegerArray):
    """The encoding ``grouped``: integers of few bits, ``[m, bytes] uint8``, with a float16 scale for each group in a row."""

    def __init__(self, codes: Tensor, scales: Tensor, shape: tuple[int, ...], like: Tensor, bits: int, group: int, columns: int, **rest: Any):
        super().__init__(codes, scales, shape, like, **rest)
        self.bits, self.group, self.columns = bits, group, columns

    def is_in_rows(self, columns: int) -> bool:
        return columns % self.columns == 0

    def rows(self, begin: int, end: int, columns: int) -> Tensor:
        if not self.is_in_rows(columns):
            return self._decoded(self.codes, self.scales).reshape(-1, columns)[begin:end]
        each = columns // self.columns
        part = slice(begin * each, end * each)
        return self._decoded(self.codes[part], self.scales[part]).reshape(end - begin, columns)

    def _selected(self, ids: Tensor, columns: int) -> Tensor:
        each = columns // self.columns
        stored = (ids[:, None] * each + torch.arange(each, device=ids.device)).reshape(-1)
        return self._decoded(self.codes[stored], self.scales[stored]).reshape(len(ids), columns)

    def _decoded(self, data: Tensor, scales: Tensor) -> Tensor:
        """Values ``[m, columns]``: exact in float32, then rounded once."""
        codes = _unpacked(data, self.bits, self.columns).float()
        scales = scales.float().repeat_interleave(self.group, 1)[:, : self.columns]
        return codes.sub_(grouped.zero_of(self.bits)).mul_(scales).to(self.dtype)


class ScaledArray(IntegerArray):
    """The encoding ``scaled``: int8 values with float32 scales that broadcast."""

    def is_in_rows(self, columns: int) -> bool:
        # True if there is one scale for each row, or one for all, and if the matrix has the rows of the array.
        return len(self.value_shape) > 1 and self._columns == columns and prod(self.scales.shape[self._axis :]) == 1

    @property
    def _axis(self) -> int:
        """The first axis of the columns: the last axis longer than 1. The axes before it are the rows."""
        sizes = [axis for axis, size in enumerate(self.value_shape) if size > 1]
        return sizes[-1] if sizes else len(self.value_shape) - 1

    @property
    def _columns(self) -> int:
        return prod(self.value_shape[self._axis :])

    def rows(self, begin: int, end: int, columns: int) -> Tensor:
        if not self.is_in_rows(columns):
            return (self.codes.float() * self.scales).reshape(-1, columns)[begin:end].to(self.dtype)
        scales = self._row_scales()
        part = scales[begin:end] if len(scales) > 1 else scales
        return (self.codes.reshape(-1, columns)[begin:end].float() * part).to(self.dtype)

    def _selected(self, ids: Tensor, columns: int) -> Tensor:
        scales = self._row_scales()
        return (self.codes.reshape(-1, columns)[ids].float() * (scales[ids] if len(scales) > 1 else scales)).to(self.dtype)

    def _row_scales(self) -> Tensor:
        """``[rows, 1]``, or ``[1, 1]``."""
        rows = self.value_shape[: self._axis]
        scales = self.scales.reshape(self.scales.shape[: self._axis])
        return scales.reshape(1, 1) if scales.numel() == 1 else scales.expand(rows).reshape(-1, 1)


class _Product(torch.autograd.Function):
    """A product that decodes the values again for the gradient instead of keeping the floats."""

    @staticmethod
    def forward(context: Any, x: Tensor, array: IntegerArray, rows: int, columns: int, transposed: bool) -> Tensor:
        context.arguments = array, rows, columns, transposed
        return array.multiplied(x, rows, columns, transposed)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        array, rows, columns, transposed = context.arguments
        return array.multiplied(gradients[0], rows, columns, not transposed), None, None, None, None


class StoredCores(nn.Module):
    """The cores of a chain, some of which are integers. Indexing and iteration give floats, decoded each time."""

    def __init__(self, cores: list[nn.Parameter | IntegerArray]):
        super().__init__()
        self.count = len(cores)
        for k, core in enumerate(cores):
            if isinstance(core, IntegerArray):
                self.add_module(str(k), core)
            else:
                self.register_parameter(str(k), core)

    def stored(self, k: int) -> nn.Parameter | IntegerArray:
        """A core as the model holds it: a parameter, or integers."""
        return getattr(self, str(range(self.count)[k]))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, k: int) -> Tensor:
        core = self.stored(k)
        return core.dense() if isinstance(core, IntegerArray) else core

    def __iter__(self) -> Iterator[Tensor]:
        return (self[k] for k in range(self.count))


def _unpacked(data: Tensor, bits: int, columns: int) -> Tensor:
    """The codes ``[m, columns] uint8`` of packed rows ``[m, bytes] uint8``."""
    if bits == 8:
        return data
    if bits in (4, 2):
        shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=data.device)
        return ((data[:, :, None] >> shifts) & ((1 << bits) - 1)).reshape(len(data), -1)[:, :columns]
    start = torch.arange(columns, device=data.device) * bits
    padded = nn.functional.pad(data, (0, 1)).to(torch.int16)
    words = padded[:, start >> 3] | (padded[:, (start >> 3) + 1] & 0x7F) << 8  # no code has the highest bit of its second byte
    return ((words >> (start & 7).to(torch.int16)) & ((1 << bits) - 1)).to(torch.uint8)


def _version(tensor: Tensor) -> int:
    try:
        return tensor._version
    except RuntimeError:  # tensors that were made in inference mode have no version
        return 0
