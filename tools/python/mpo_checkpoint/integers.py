"""Arrays of a loaded model that stay the integers and scales they are stored as, and what multiplies with them."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from . import grouped

_BLOCK = 1 << 20
"""How many elements are floats at a time when a product is computed."""


class IntegerArray(nn.Module):
    """An array as integers with scales; buffers, which are not trained and which no cast of the model changes.

    Subclasses say what the integers stand for. The values come in the dtype that the model has.

    Parameters
    ----------
    codes
        the integers as they are stored.
    scales
        as they are stored; kept as bytes, so that ``model.half()`` leaves them alone.
    shape
        of the values.
    like
        a tensor of the dtype and on the device that the values are to have.
    pivots
        of a core whose identity is left out, ascending; None for none.
    side, whole_shape
        the side of its pivots, and the shape of the whole core.
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
        """Of the array, whole."""
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
        """Of the values."""
        return prod(self.value_shape)

    def key(self) -> tuple[Any, ...]:
        """Another one once the values changed, moved, or come in another dtype."""
        return self.codes.data_ptr(), _version(self.codes), _version(self.scale_bytes), self._like.dtype

    def rows(self, begin: int, end: int, columns: int) -> Tensor:
        """Rows ``begin ≤ i < end`` of the values as a matrix of so many columns."""
        raise NotImplementedError

    def is_in_rows(self, columns: int) -> bool:
        """Whether rows of so many columns can be had for themselves."""
        raise NotImplementedError

    def values(self) -> Tensor:
        """All values, of ``value_shape``."""
        columns = self.value_shape[-1]
        if not self.numel():
            return torch.zeros(self.value_shape, dtype=self.dtype, device=self.device)
        return self.rows(0, self.numel() // columns, columns).reshape(self.value_shape)

    def dense(self) -> Tensor:
        """The array, whole."""
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
        """The values as a matrix ``[rows, columns]``, some rows at a time."""
        if not self.is_in_rows(columns):
            yield 0, rows, self.values().reshape(rows, columns)
            return
        step = max(1, _BLOCK // columns)
        for begin in range(0, rows, step):
            end = min(begin + step, rows)
            yield begin, end, self.rows(begin, end, columns)

    def product(self, x: Tensor, rows: int, columns: int, transposed: bool) -> Tensor:
        """``x Mᵀ`` of ``x [batch, columns]``, or ``x M`` of ``x [batch, rows]``, M the values as ``[rows, columns]``."""
        if torch.is_grad_enabled() and x.requires_grad:
            return _Product.apply(x, self, rows, columns, transposed)
        return self.multiplied(x, rows, columns, transposed)

    def multiplied(self, x: Tensor, rows: int, columns: int, transposed: bool) -> Tensor:
        """`product` without a gradient."""
        if not transposed:
            parts = [x @ block.T for _, _, block in self.blocks(rows, columns)]
            return parts[0] if len(parts) == 1 else torch.cat(parts, -1)
        result = x.new_zeros(len(x), columns)
        for begin, end, block in self.blocks(rows, columns):
            result += x[:, begin:end] @ block
        return result

    def selected(self, ids: Tensor, columns: int) -> Tensor:
        """The rows ``[n, columns]`` at ``ids [n]`` of the values as a matrix of so many columns."""
        if self.is_in_rows(columns):
            return self._selected(ids, columns)
        return self.values().reshape(-1, columns)[ids]

    def _selected(self, ids: Tensor, columns: int) -> Tensor:
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f"{list(self.whole_shape)}, {self.codes.numel() + self.scale_bytes.numel()} bytes"


class GroupedArray(IntegerArray):
    """Integers of few bits, ``[m, bytes] uint8``, a float16 scale for each group in a row: the encoding ``grouped``."""

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
    """Bytes ``int8`` with float32 scales that broadcast: the encoding ``scaled``."""

    def is_in_rows(self, columns: int) -> bool:
        # A scale for each row, or for all of them, of a matrix whose rows are the array's.
        return len(self.value_shape) > 1 and self._columns == columns and prod(self.scales.shape[self._axis :]) == 1

    @property
    def _axis(self) -> int:
        """The first axis that is a column's: rows are everything before the last axis that has a size."""
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
    """A product whose floats are made again for the gradient, not kept for it."""

    @staticmethod
    def forward(context: Any, x: Tensor, array: IntegerArray, rows: int, columns: int, transposed: bool) -> Tensor:
        context.arguments = array, rows, columns, transposed
        return array.multiplied(x, rows, columns, transposed)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        array, rows, columns, transposed = context.arguments
        return array.multiplied(gradients[0], rows, columns, not transposed), None, None, None, None


class StoredCores(nn.Module):
    """The cores of a chain, some of them integers: indexed and iterated over, those come as floats, made anew each time."""

    def __init__(self, cores: list[nn.Parameter | IntegerArray]):
        super().__init__()
        self.count = len(cores)
        for k, core in enumerate(cores):
            if isinstance(core, IntegerArray):
                self.add_module(str(k), core)
            else:
                self.register_parameter(str(k), core)

    def stored(self, k: int) -> nn.Parameter | IntegerArray:
        """A core as it is kept."""
        return getattr(self, str(range(self.count)[k]))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, k: int) -> Tensor:
        core = self.stored(k)
        return core.dense() if isinstance(core, IntegerArray) else core

    def __iter__(self) -> Iterator[Tensor]:
        return (self[k] for k in range(self.count))


def _unpacked(data: Tensor, bits: int, columns: int) -> Tensor:
    """Codes ``[m, columns] uint8`` of the stream ``[m, bytes]``."""
    if bits == 8:
        return data
    if bits in (4, 2):
        shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=data.device)
        return ((data[:, :, None] >> shifts) & ((1 << bits) - 1)).reshape(len(data), -1)[:, :columns]
    start = torch.arange(columns, device=data.device) * bits
    padded = nn.functional.pad(data, (0, 1)).to(torch.int16)
    words = padded[:, start >> 3] | (padded[:, (start >> 3) + 1] & 0x7F) << 8  # the highest bit of a second byte is never read
    return ((words >> (start & 7).to(torch.int16)) & ((1 << bits) - 1)).to(torch.uint8)


def _version(tensor: Tensor) -> int:
    try:
        return tensor._version
    except RuntimeError:  # what was made in inference mode has none
        return 0
