"""Integers of few bits with a scale for each group of neighbours in a row: decoding, packing and rounding.

A value is ``(code − zero) · scale``. The codes of a row are a stream of bits that begins with the lowest bit of the first code.
"""

from __future__ import annotations

import numpy as np

from .errors import CheckpointError

BITS = (2, 3, 4, 5, 6, 8)
GROUPS = (16, 32, 64, 128)
_STEPS = tuple(1 - 0.04 * step for step in range(10))
"""`rounded` tries these multiples of the scale with which the largest value of a group is exact."""


def zero_of(bits: int) -> float:
    """The code of the value zero: an integer for 4 bits and more, halfway between two codes for 3 and 2 bits."""
    return float(1 << (bits - 1)) if bits >= 4 else ((1 << bits) - 1) / 2


def row_bytes(columns: int, bits: int) -> int:
    """The bytes of a row of codes."""
    return -(-columns * bits // 8)


def group_count(columns: int, group: int) -> int:
    """The number of scales of a row; its last group may be shorter."""
    return -(-columns // group)


def unpacked_codes(data: np.ndarray, bits: int, columns: int) -> np.ndarray:
    """``[m, columns] uint8`` of the stream ``[m, bytes] uint8``."""
    if bits == 8:
        return data
    start = np.arange(columns) * bits
    padded = np.pad(data, ((0, 0), (0, 1))).astype(np.uint16)
    words = padded[:, start >> 3] | padded[:, (start >> 3) + 1] << 8
    return ((words >> (start & 7).astype(np.uint16)) & ((1 << bits) - 1)).astype(np.uint8)


def packed_codes(codes: np.ndarray, bits: int) -> np.ndarray:
    """The stream ``[m, bytes] uint8`` of ``[m, columns] uint8``."""
    rows, columns = codes.shape
    if bits == 8:
        return np.ascontiguousarray(codes)
    each = np.unpackbits(codes[:, :, None], axis=2, count=bits, bitorder="little")
    return np.packbits(each.reshape(rows, columns * bits), axis=1, bitorder="little")


def decoded(data: np.ndarray, scales: np.ndarray, bits: int, group: int, columns: int) -> np.ndarray:
    """The values ``[m, columns] float32``, exactly.

    Parameters
    ----------
    data, scales
        ``[m, bytes] uint8`` and ``[m, groups] float16``.
    """
    codes = unpacked_codes(data, bits, columns).astype(np.float32)
    return (codes - np.float32(zero_of(bits))) * np.repeat(scales.astype(np.float32), group, axis=1)[:, :columns]


def rounded(values: np.ndarray, bits: int, group: int) -> tuple[np.ndarray, np.ndarray]:
    """Rounds to the nearest codes; for each group, the scale with the least squared error of several is taken.

    Parameters
    ----------
    values
        ``[m, n]``.

    Returns
    -------
    the codes ``[m, n] uint8`` and the scales ``[m, groups] float16``.

    Raises
    ------
    CheckpointError
        if a value is too large for a float16 scale.
    """
    rows, columns = values.shape
    groups, zero, top = group_count(columns, group), zero_of(bits), (1 << bits) - 1
    padded = np.zeros((rows, groups * group), np.float32)
    padded[:, :columns] = values
    blocks = padded.reshape(rows, groups, group)
    is_there = (np.arange(groups * group) < columns).reshape(groups, group)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(2)[..., None], 2)[..., 0]
    bases: list[np.ndarray] = [np.abs(largest) / (top - zero)]
    if bits >= 4:  # there is one more code below zero than above; the largest value can have that code
        bases.append(-largest / zero)

    def codes_of(scales: np.ndarray) -> np.ndarray:
        exact = scales.astype(np.float32)[..., None]
        steps = np.divide(blocks, exact, where=exact != 0, out=np.zeros_like(blocks))
        return np.clip(np.rint(steps + np.float32(zero)), 0, top)

    best = np.full((rows, groups), np.inf, np.float32)
    scales = np.zeros((rows, groups), np.float16)
    codes = np.zeros(blocks.shape, np.uint8)
    with np.errstate(over="ignore"):
        for base in bases:
            for step in _STEPS:
                candidate = (base * step).astype(np.float16)
                for _ in range(2):  # the second time with the best scale for the codes of the first
                    found = codes_of(candidate)
                    exact = (found - np.float32(zero)) * is_there
                    errors = np.square(exact * candidate.astype(np.float32)[..., None] - blocks).sum(2)
                    is_less = errors < best
                    best, scales = np.where(is_less, errors, best), np.where(is_less, candidate, scales)
                    codes = np.where(is_less[..., None], found.astype(np.uint8), codes)
                    candidate = ((exact * blocks).sum(2) / np.maximum(np.square(exact).sum(2), 1e-9)).astype(np.float16)
    if not np.isfinite(best).all():
        raise CheckpointError("scales", "the values are too large for float16 scales")
    return codes.reshape(rows, -1)[:, :columns], scales
