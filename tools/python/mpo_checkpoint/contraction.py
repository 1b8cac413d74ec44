"""Products with a matrix product operator that do not build its matrix, and their costs in multiplications.

Cores are ``[d_k, i_k, j_k, d_{k+1}]``. The index of a row has the digits ``i_k``, that of a column the digits ``j_k``, most
significant digit first.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

Shapes = Sequence[tuple[int, int, int, int]]

_GATHERED_ELEMENTS = 1 << 24
"""The maximum number of elements of core slices that a row lookup gathers at a time."""


def matrix(cores: Sequence[Tensor]) -> Tensor:
    """The padded matrix ``[∏ i_k, ∏ j_k]``."""
    result = cores[0]
    for core in cores[1:]:
        left, rows, columns, bond = result.shape
        _, i, j, right = core.shape
        product = result.reshape(-1, bond) @ core.reshape(bond, -1)
        product = product.reshape(left, rows, columns, i, j, right).transpose(2, 3)
        result = product.reshape(left, rows * i, columns * j, right)
    return result[0, :, :, 0]


def matrix_cost(shapes: Shapes) -> int:
    """The multiplications of `matrix`."""
    cost, built = 0, 1
    for left, i, j, right in shapes:
        cost += built * left * i * j * right
        built *= i * j
    return cost


def apply(cores: Sequence[Tensor], x: Tensor) -> Tensor:
    """``W x`` for every row of ``x [batch, ∏ j_k]``: ``[batch, ∏ i_k]``, beginning at the cheaper end of the chain."""
    shapes = [tuple(core.shape) for core in cores]
    if _cost_from_left(shapes) <= _cost_from_left(_mirrored(shapes)):
        return _apply_from_left(cores, x)
    return _apply_from_right(cores, x)


def apply_cost(shapes: Shapes) -> int:
    """The multiplications of `apply` for a batch of one."""
    return min(_cost_from_left(shapes), _cost_from_left(_mirrored(shapes)))


def _mirrored(shapes: Shapes) -> Shapes:
    return [(right, i, j, left) for left, i, j, right in reversed(shapes)]


def _cost_from_left(shapes: Shapes) -> int:
    cost, done, rest = 0, 1, prod(j for _, _, j, _ in shapes)
    for left, i, j, right in shapes:
        cost += done * left * rest * i * right
        done, rest = done * i, rest // j
    return cost


def _apply_from_left(cores: Sequence[Tensor], x: Tensor) -> Tensor:
    batch, rest = x.shape
    done, state = 1, x
    for core in cores:  # state: [batch, rows done, bond, columns to come]
        left, i, j, right = core.shape
        rest //= j
        state = torch.einsum("bpljr,lije->bpier", state.reshape(batch, done, left, j, rest), core)
        done *= i
    return state.reshape(batch, done)


def _apply_from_right(cores: Sequence[Tensor], x: Tensor) -> Tensor:
    batch, rest = x.shape
    done, state = 1, x
    for core in reversed(cores):  # state: [batch, columns to come, bond, rows done]
        left, i, j, right = core.shape
        rest //= j
        state = torch.einsum("bcjrp,lijr->bclip", state.reshape(batch, rest, j, right, done), core)
        done *= i
    return state.reshape(batch, done)


def transposed(cores: Sequence[Tensor]) -> list[Tensor]:
    """The cores of ``Wᵀ``."""
    return [core.transpose(1, 2) for core in cores]


def rows(cores: Sequence[Tensor], ids: Tensor) -> Tensor:
    """The rows ``[n, ∏ j_k]`` of the matrix at ``ids [n]``."""
    largest = max(core.shape[0] * core.shape[2] * core.shape[3] for core in cores)
    chunk = max(1, _GATHERED_ELEMENTS // largest)
    return torch.cat([_rows(cores, part) for part in ids.split(chunk)])


def _rows(cores: Sequence[Tensor], ids: Tensor) -> Tensor:
    digits = []
    for core in reversed(cores):
        digits.append(ids % core.shape[1])
        ids = torch.div(ids, core.shape[1], rounding_mode="floor")
    count, done = len(ids), 1
    result = cores[0].new_ones(count, 1, 1)
    for core, digit in zip(cores, reversed(digits)):
        left, _, j, right = core.shape
        slices = core.movedim(1, 0)[digit].reshape(count, left, j * right)
        result = result.reshape(count, done, left) @ slices  # [n, columns done, j_k · d_{k+1}]
        done *= j
    return result.reshape(count, done)


def rows_cost(shapes: Shapes) -> int:
    """The multiplications of `rows` for one row."""
    cost, done = 0, 1
    for left, _, j, right in shapes:
        cost += done * left * j * right
        done *= j
    return cost
