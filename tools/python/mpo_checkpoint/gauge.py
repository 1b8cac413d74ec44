"""Gauges of a chain of cores ``[d, i, j, d']``: other cores of the same matrix. NumPy, in float64.

A bond of dimension d lets any invertible d × d matrix pass. Here it is chosen so that the cores beside the centre are
isometries (canonical) or contain the identity, which needs not be stored (compact).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LARGEST = 2.0
"""What `pivot_rows` leaves at most of an element in magnitude."""
_PANEL = 32


def canonical(cores: Sequence[np.ndarray], central: int) -> list[np.ndarray]:
    """The same chain with isometries beside the central core, by QR from both ends.

    Left of the centre ``AᵀA = 1`` as matrices ``[d·i·j, d']``, right of it ``BBᵀ = 1`` as matrices ``[d, i·j·d']``. Square
    cores between two frames carry the weight together, see `deep`.
    """
    if is_deep([core.shape for core in cores]):
        return deep(cores)
    return _toward_centre(cores, central, _isometry)[0]


def _isometry(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, None]:
    q, r = np.linalg.qr(matrix)
    return q, r, None


def is_deep(shapes: Sequence[tuple[int, ...]]) -> bool:
    """Whether a chain has only square cores ``[r, 1, 1, r]`` between the frames of its rows and its columns."""
    inner = shapes[1:-1]
    return len(inner) > 0 and shapes[0][2] == shapes[-1][1] == 1 and all(i == j == 1 for _, i, j, _ in inner)


def deep(cores: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The same chain, `is_deep`, with isometries at its ends and the singular values spread over the diagonals between."""
    first, *inner, last = [np.asarray(core, np.float64) for core in cores]
    left, middle = np.linalg.qr(first[0, :, 0])
    right, rest = np.linalg.qr(last[:, 0, :, 0].T)
    for core in inner:
        middle = middle @ core[:, 0, 0]
    u, sigma, v = np.linalg.svd(middle @ rest.T)
    square = np.diag(sigma ** (1 / len(inner)))[:, None, None]
    return [(left @ u)[None, :, None], *[square] * len(inner), (v @ right.T)[:, None, :, None]]


def compact(cores: Sequence[np.ndarray], central: int) -> tuple[list[np.ndarray], list[np.ndarray | None]]:
    """The same chain with cores beside the central one that contain the identity, and the places of the identity.

    Returns
    -------
    the cores, whole, and for each the ascending pivots: rows of ``[d·i·j, d']`` left of the centre, columns of
    ``[d, i·j·d']`` right of it, None for the central core. No element beside the centre is much larger than 2.
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
    """The same chain with isometries everywhere and the singular values at the central bond apart, in falling order."""
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
    """Splits every core beside the centre into what stays and what goes inward: ``matrix = stays @ inward``."""
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
    """Rows of a matrix in whose basis all others are small.

    The rows are those of Gaussian elimination with partial pivoting, then one is swapped for another while that enlarges
    the determinant by more than `LARGEST` (Goreinov et al., "How to find a good submatrix", 2010).

    Parameters
    ----------
    matrix
        ``[m, d]`` of full column rank, m > d; orthonormal columns are best.

    Returns
    -------
    the ascending pivots ``[d]``, and ``matrix @ inv(matrix[pivots])``, exactly the identity in the pivot rows.
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
    fixed = np.linalg.solve(matrix[pivots].T, matrix.T).T  # ascending, and free of what the swaps rounded
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
