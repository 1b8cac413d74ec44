"""Published methods of rounding matrices to few bits, implemented from their definitions in NumPy.

    nearest   to the nearest integer; each group of neighbours in a row has a float16 scale, the largest element over the
              largest integer
    GPTQ      column by column; the error of each column is carried over to the columns not yet rounded (arXiv 2210.17323)
    gguf      the block formats of llama.cpp, by the package gguf

Each function gives the decoded matrix, and the bytes of everything that is stored: integers, scales, zeros and order.
"""

from __future__ import annotations

import math

import numpy as np

DAMPING = 0.01
_BLOCK = 128
_SHRUNK = tuple(1 - 0.05 * step for step in range(11))
"""These parts of a group's range are tried as the range of the grid; the one with the least squared error is taken."""


def nearest(matrix, bits, group):
    """Rounds to the nearest of ``−2^(bits−1) … 2^(bits−1) − 1`` times the scale of a group.

    Parameters
    ----------
    matrix
        ``[m, n]``.

    Returns
    -------
    the matrix ``[m, n]`` float32, and its size in bytes.
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
    """What GPTQ needs of the second moment ``[n, n]`` of the inputs.

    Parameters
    ----------
    damping
        this times the mean of the moment's diagonal is added to the diagonal.

    Returns
    -------
    the order of the columns, largest inputs first; which inputs are always zero; and the upper Cholesky factor of the inverse
    moment in that order, with which errors are carried over.
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

    Each group of consecutive columns in this order has a scale (float16) and a zero (of ``bits`` bits) in every row.

    Parameters
    ----------
    matrix
        ``[m, n]``.
    moment
        the second moment ``[n, n]`` of the inputs, or the result of `feedback`.

    Returns
    -------
    the matrix ``[m, n]`` float32, and its size in bytes.
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
    """Quantises and dequantises with the package gguf.

    Parameters
    ----------
    matrix
        ``[m, n]``, where n is a multiple of 32.
    kind
        a type of the package, such as ``Q4_0``.

    Returns
    -------
    the matrix ``[m, n]`` float32, and its size in bytes.
    """
    from gguf import GGMLQuantizationType, quants

    data = quants.quantize(np.ascontiguousarray(matrix, np.float32), GGMLQuantizationType[kind])
    return quants.dequantize(data, GGMLQuantizationType[kind]), data.nbytes


def error_of(matrix, rounded, moment):
    """``‖(W − Ŵ) X‖²``, which GPTQ minimises, computed from the second moment of the inputs."""
    difference = matrix.astype(np.float64) - rounded
    return float(np.einsum("ij,ij->", difference @ moment, difference))


def mixed(sizes, errors, budget):
    """Chooses a setting for each matrix, so that the sum of the errors is small within a budget of bytes.

    Parameters
    ----------
    sizes
        ``[matrices, settings]``, the bytes of each matrix with each setting.
    errors
        ``[matrices, settings]``, the error of each matrix with each setting.
    budget
        in bytes.

    Returns
    -------
    the indices of the settings, ``[matrices]``; None if even the smallest settings take more than the budget.
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
    while True:  # the rest of the budget goes to the matrices that gain most per byte
        room = budget - sizes[every, chosen].sum()
        growth = sizes - sizes[every, chosen][:, None]
        gains = errors[every, chosen][:, None] - errors
        fits = (growth <= room) & (gains > 0)
        if not fits.any():
            return chosen
        matrix, setting = np.unravel_index(np.where(fits, gains / np.maximum(growth, 1), -1).argmax(), sizes.shape)
        chosen[matrix] = setting
