"""Gauges of a chain of cores ``[d, i, j, d']``: different cores of the same matrix. NumPy, in float64.

Any invertible d × d matrix and its inverse can be inserted at a bond of dimension d without changing the matrix of the chain.
These functions choose them so that the cores beside the centre are isometries (canonical), or contain the identity, which need
not be stored (compact).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LARGEST = 2.0
"""`pivot_rows` swaps rows until no element is larger than this in magnitude."""
_PANEL = 32


def canonical(cores: Sequence[np.ndarray], central: int) -> list[np.ndarray]:
    """The same chain with isometries beside the central core, by QR from both ends.

    A core left of the centre has ``AᵀA = 1`` as a matrix ``[d·i·j, d']``; a core right of it has ``BBᵀ = 1`` as a matrix
    ``[d, i·j·d']``. If the chain `is_deep`, the result is that of `deep`.
    """
    if is_deep([core.shape for core in cores]):
        return deep(cores)
    return _toward_centre(cores, central, _isometry)[0]


def _isometry(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, None]:
    q, r = np.linalg.qr(matrix)
    return q, r, None


def is_deep(shapes: Sequence[tuple[int, ...]]) -> bool:
    """Whether all cores between the first, which has the rows, and the last, which has the columns, are square ``[r, 1, 1, r]``."""
    inner = shapes[1:-1]
    return len(inner) > 0 and shapes[0][2] == shapes[-1][1] == 1 and all(i == j == 1 for _, i, j, _ in inner)


def deep(cores: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The same chain with isometries at its ends and equal diagonal cores between them, whose product has the singular values.

    The chain must be one that `is_deep`.
    """
    first, *inner, last = [np.asarray(core, np.float64) for core in cores]
    left, middle = np.linalg.qr(first[0, :, 0])
    right, rest = np.linalg.qr(last[:, 0, :, 0].T)
    for core in inner:
        middle = middle @ core[:, 0, 0]
    u, sigma, v = np.linalg.svd(middle @ rest.T)
    square = np.diag(sigma ** (1 / len(inner)))[:, None, None]
    return [(left @ u)[None, :, None], *[square] * len(inner), (v @ right.T)[:, None, :, None]]


def compact(cores: Sequence[np.ndarray], central: int) -> tuple[list[np.ndarray], list[np.ndarray | None]]:
    """The same chain with an identity in each core beside the central one, and the places of the identities.

    Returns
    -------
    the whole cores, and for each core its ascending pivots: rows of ``[d·i·j, d']`` left of the centre, columns of
    ``[d, i·j·d']`` right of it, None for the central core. No element beside the centre is much larger than 2 in magnitude.
    """

    def pivoted(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        size, count = matrix.shape
        if size == count:
            return np.eye(size), matrix, np.arange(size)
        q, r = np.linalg.qr(matrix)
        pivots, fixed = pivot_rows(q)
        return fixed, q[pivots] @ r, pivots

    return _toward_centre(cores, central, pivoted)


def spectral(cores: Sequence[np.ndarray], central: int) -> tuple[list[np.ndarray], np.ndarray]:
    """The same chain with an isometry in every core, and the singular values at the central bond in descending order."""
    chain = _toward_centre(cores, central, _isometry)[0]
    bond = max(0, central - 1)  # between the cores bond and bond + 1
    left, right = chain[bond], chain[bond + 1]
    d, e = left.shape[0], right.shape[3]
    if central > 0:
        u, sigma, v = np.linalg.svd(right.reshape(len(right), -1), full_matrices=False)
        chain[bond] = left @ u
        chain[bond + 1] = v.reshape(-1, *right.shape[1:])
    else:
        u, sigma, v = np.linalg.svd(left.reshape(-1, left.shape[3]), full_matrices=False)
        chain[0] = u.reshape(d, *left.shape[1:3], -1)
        chain[1] = np.tensordot(v, right, 1)
    assert chain[bond].shape[3] == len(sigma) and chain[bond + 1].shape[3] == e
    return chain, sigma


def _toward_centre(cores, central, split):
    """Splits every core beside the centre as ``matrix = stays @ inward`` and multiplies ``inward`` into the next core inward."""
    cores = [np.asarray(core, np.float64) for core in cores]
    pivots: list[np.ndarray | None] = [None] * len(cores)
    for k in range(central):
        shape = cores[k].shape
        stays, inward, pivots[k] = split(cores[k].reshape(-1, shape[3]))
        cores[k] = stays.reshape(shape)
        cores[k + 1] = np.tensordot(inward, cores[k + 1], 1)
    for k in range(len(cores) - 1, central, -1):
        shape = cores[k].shape
        stays, inward, pivots[k] = split(cores[k].reshape(shape[0], -1).T)
        cores[k] = np.ascontiguousarray(stays.T).reshape(shape)
        cores[k - 1] = cores[k - 1] @ inward.T
    return cores, pivots


def pivot_rows(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a matrix such that all other rows are combinations of them with small coefficients.

    Gaussian elimination with partial pivoting gives the first rows. Then rows are swapped for others as long as a swap
    multiplies the determinant by more than `LARGEST` (Goreinov et al., "How to find a good submatrix", 2010).

    Parameters
    ----------
    matrix
        ``[m, d]`` of full column rank, m > d; best with orthonormal columns.

    Returns
    -------
    the ascending pivots ``[d]``, and ``matrix @ inv(matrix[pivots])``, which is exactly the identity in the pivot rows.
    """
    count = matrix.shape[1]
    pivots = _eliminated_rows(matrix)
    fixed = np.linalg.solve(matrix[pivots].T, matrix.T).T
    for _ in range(4 * count + 16):
        row, column = np.unravel_index(np.abs(fixed).argmax(), fixed.shape)
        if abs(fixed[row, column]) <= LARGEST:
            break
        change = fixed[row].copy()
        change[column] -= 1
        fixed -= np.outer(fixed[:, column] / fixed[row, column], change)
        pivots[column] = row
    pivots.sort()
    fixed = np.linalg.solve(matrix[pivots].T, matrix.T).T  # anew, in the ascending order and without the swaps' rounding errors
    fixed[pivots] = np.eye(count)
    return pivots, fixed


def _eliminated_rows(matrix: np.ndarray) -> np.ndarray:
    """The pivot rows of Gaussian elimination with partial pivoting, in the order of the columns."""
    a, order = np.array(matrix, np.float64), np.arange(len(matrix))
    count = a.shape[1]
    for start in range(0, count, _PANEL):
        stop = min(start + _PANEL, count)
        for k in range(start, stop):
            best = k + int(np.abs(a[k:, k]).argmax())
            if best != k:
                a[[k, best]], order[[k, best]] = a[[best, k]], order[[best, k]]
            if a[k, k] != 0:
                a[k + 1 :, k] /= a[k, k]
            a[k + 1 :, k + 1 : stop] -= np.outer(a[k + 1 :, k], a[k, k + 1 : stop])
        if stop < count:
            lower = np.tril(a[start:stop, start:stop], -1) + np.eye(stop - start)
            a[start:stop, stop:] = np.linalg.solve(lower, a[start:stop, stop:])
            a[stop:, stop:] -= a[stop:, start:stop] @ a[start:stop, stop:]
    return order[:count].copy()
