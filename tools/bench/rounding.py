"""Published ways to round matrices to few bits, straight from their definitions, in NumPy.

    nearest   integers of groups of neighbours in a row, a float16 scale each: the largest element's over the largest integer
    GPTQ      column by column, the error of each carried over to those not yet rounded (arXiv 2210.17323)
    gguf      the block formats of llama.cpp, by the package of that name

Each gives the matrix as it comes back, and the bytes that it takes: integers, scales, zeros, order, all of it.
"""

from __future__ import annotations

import math

import numpy as np

DAMPING = 0.01
_BLOCK = 128
_SHRUNK = tuple(1 - 0.05 * step for step in range(11))
"""Parts of the range of a group that are tried as the grid's range; the one of least squared error is taken."""


def nearest(matrix, bits, group):
    """Rounds to the nearest of ``−2^(bits−1) … 2^(bits−1) − 1`` times the scale of a group.

    Args:
        matrix: ``[m, n]``.

    Returns:
        The matrix ``[m, n]`` float32 and its bytes.
    """
    rows, columns = matrix.shape
    groups = -(-columns // group)
    padded = np.zeros((rows, groups * group), np.float32)
    padded[:, :columns] = matrix
    blocks = padded.reshape(rows, groups, group)
    largest = 2 ** (bits - 1) - 1
    scales = (np.abs(blocks).max(-1, keepdims=True) / largest).astype(np.float16).astype(np.float32)
    codes = np.rint(blocks / np.where(scales > 0, scales, 1)).clip(-largest - 1, largest)
    result = (codes * scales).reshape(rows, -1)[:, :columns]
    return result, math.ceil(rows * columns * bits / 8) + rows * groups * 2


def feedback(moment, damping=DAMPING):
    """Of the second moment of inputs ``[n, n]``: the order of the columns, those that are always zero, and the upper Cholesky
    factor of the inverse in that order, by which errors are carried over.

    ``damping`` times the mean of the moment's diagonal is added to that.
    """
    moment = np.array(moment, np.float64)
    diagonal = np.arange(len(moment))
    is_dead = moment[diagonal, diagonal] == 0
    moment[is_dead, is_dead] = 1
    order = np.argsort(-moment[diagonal, diagonal], kind="stable")
    moment = moment[np.ix_(order, order)]
    moment[diagonal, diagonal] += damping * moment[diagonal, diagonal].mean()
    return order, is_dead, np.linalg.cholesky(np.linalg.inv(moment)).T.astype(np.float32)


def gptq(matrix, moment, bits, group):
    """Rounds column by column, those of the largest inputs first, with error feedback.

    Scales (float16) and zeros (of ``bits`` bits) belong to groups of consecutive columns in that order.

    Args:
        matrix: ``[m, n]``.
        moment: ``[n, n]``, the second moment of its inputs, or what `feedback` made of it.

    Returns:
        The matrix ``[m, n]`` float32 and its bytes.
    """
    assert _BLOCK % group == 0
    order, is_dead, upper = feedback(moment) if isinstance(moment, np.ndarray) else moment
    rest = matrix.T.astype(np.float32)
    rest[is_dead] = 0
    rest = rest[order]
    columns, rows = rest.shape
    result = np.empty_like(rest)
    for start in range(0, columns, _BLOCK):
        stop = min(start + _BLOCK, columns)
        errors = np.empty((stop - start, rows), np.float32)
        for column in range(start, stop):
            if column % group == 0:
                scale, zero = _grid(rest[column : min(column + group, stop)], bits)
            values = rest[column]
            codes = np.rint(values / scale + zero).clip(0, 2**bits - 1)
            result[column] = (codes - zero) * scale
            errors[column - start] = (values - result[column]) / upper[column, column]
            rest[column + 1 : stop] -= upper[column, column + 1 : stop, None] * errors[column - start]
        rest[stop:] -= upper[start:stop, stop:].T @ errors
    back = np.empty_like(result)
    back[order] = result
    groups = -(-columns // group)
    size = math.ceil(rows * columns * bits / 8) + math.ceil(rows * groups * (16 + bits) / 8)
    return np.ascontiguousarray(back.T), size + math.ceil(columns * math.ceil(math.log2(max(groups, 1))) / 8)


def _grid(values, bits):
    """The scale and the zero ``[m]`` of a group ``[group, m]``: ``(code − zero) · scale``."""
    top = 2**bits - 1
    low, high = np.minimum(values.min(0), 0), np.maximum(values.max(0), 0)
    best, found = None, None
    for part in _SHRUNK if bits < 8 else (1.0,):
        scale = (part * (high - low) / top).astype(np.float16).astype(np.float32)
        scale[scale == 0] = 1
        zero = np.rint(-part * low / scale).clip(0, top)
        codes = np.rint(values / scale + zero).clip(0, top)
        error = np.square((codes - zero) * scale - values).sum(0)
        if best is None:
            best, found = error, [scale, zero]
            continue
        is_less = error < best
        best = np.where(is_less, error, best)
        found = [np.where(is_less, new, old) for new, old in zip((scale, zero), found)]
    return found


def gguf_rounded(matrix, kind):
    """Quantises and dequantises by the package gguf.

    Args:
        matrix: ``[m, n]``, n a multiple of 32.
        kind: such as ``Q4_0``.

    Returns:
        The matrix ``[m, n]`` float32 and its bytes.
    """
    from gguf import GGMLQuantizationType, quants

    data = quants.quantize(np.ascontiguousarray(matrix, np.float32), GGMLQuantizationType[kind])
    return quants.dequantize(data, GGMLQuantizationType[kind]), data.nbytes


def error_of(matrix, rounded, moment):
    """``‖(W − Ŵ) X‖²``, which GPTQ makes small, from the second moment of the inputs."""
    difference = matrix.astype(np.float64) - rounded
    return float(np.einsum("ij,ij->", difference @ moment, difference))


def mixed(sizes, errors, budget):
    """Which of several settings each matrix has, so that the sum of their errors is least within a budget of bytes.

    Args:
        sizes: ``[matrices, settings]``, bytes.
        errors: the same, of each matrix with each setting.
        budget: in bytes.

    Returns:
        ``[matrices]``, indices of settings; None where even the smallest need more.
    """
    sizes, errors = np.asarray(sizes, np.float64), np.asarray(errors, np.float64)
    every = np.arange(len(sizes))
    if sizes.min(1).sum() > budget:
        return None
    low, high = 0.0, errors.max() / 1e-3
    for _ in range(200):
        price = (low + high) / 2
        chosen = (errors + price * sizes).argmin(1)
        low, high = (low, price) if sizes[every, chosen].sum() <= budget else (price, high)
    chosen = (errors + high * sizes).argmin(1)
    if sizes[every, chosen].sum() > budget:
        chosen = sizes.argmin(1)
    while True:  # what is left of the budget goes to the matrices that gain most
        room = budget - sizes[every, chosen].sum()
        growth = sizes - sizes[every, chosen][:, None]
        gains = errors[every, chosen][:, None] - errors
        fits = (growth <= room) & (gains > 0)
        if not fits.any():
            return chosen
        matrix, setting = np.unravel_index(np.where(fits, gains / np.maximum(growth, 1), -1).argmax(), sizes.shape)
        chosen[matrix] = setting
