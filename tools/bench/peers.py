"""Decomposes a matrix into a chain of cores with given bonds by other software.

usage: peers.py PEER MATRIX.npy DECOMPOSITION.json     prints the seconds and the relative error

DECOMPOSITION.json has row_factors, column_factors and bonds. Each peer runs in a process of its own, whose environment sets the
number of threads.
"""

import json
import sys
import time
from math import prod

import numpy as np


def site_order(matrix, rows, columns):
    """A matrix as the tensor ``[i1 j1, i2 j2, …]``, padded with zeros."""
    n = len(rows)
    padded = np.zeros((prod(rows), prod(columns)), matrix.dtype)
    padded[: matrix.shape[0], : matrix.shape[1]] = matrix
    order = [axis for site in range(n) for axis in (site, n + site)]
    return padded.reshape(*rows, *columns).transpose(order).reshape([i * j for i, j in zip(rows, columns)])


def sweep(svd, rest, sizes, bonds, divide):
    """The sweep of the published code, from the left, with one singular value decomposition for each bond."""
    cores, bond = [], 1
    rest = rest.reshape(bond * sizes[0], -1)
    for site, size in enumerate(sizes[:-1]):
        u, s, v = svd(rest.reshape(bond * size, -1))
        kept = len(s) if bonds is None else min(bonds[site], len(s))
        cores.append(u[:, :kept].reshape(bond, size, kept))
        rest, bond = divide(s[:kept], v[:kept]), kept
    return cores + [rest.reshape(bond, sizes[-1], 1)]


def sequential_svd(matrix, rows, columns, bonds=None):
    """The method of the published code in NumPy: cores ``[d, i, j, d']``, of full rank if no bonds are given."""
    tensor = site_order(matrix, rows, columns)
    cores = sweep(lambda m: np.linalg.svd(m, full_matrices=False), tensor, tensor.shape, bonds, lambda s, v: s[:, None] * v)
    return [core.reshape(core.shape[0], i, j, core.shape[2]) for core, i, j in zip(cores, rows, columns)]


def with_torch(matrix, rows, columns, bonds):
    import torch

    tensor = torch.from_numpy(site_order(matrix, rows, columns))
    svd = lambda m: torch.linalg.svd(m, full_matrices=False)  # noqa: E731
    return sweep(svd, tensor, tensor.shape, bonds, lambda s, v: s[:, None] * v)


def with_tensorly(matrix, rows, columns, bonds):
    from tensorly.decomposition import tensor_train_matrix

    padded = np.zeros((prod(rows), prod(columns)), matrix.dtype)
    padded[: matrix.shape[0], : matrix.shape[1]] = matrix
    return tensor_train_matrix(padded.reshape(*rows, *columns), rank=[1, *bonds, 1])


def with_teneva(matrix, rows, columns, bonds):
    import teneva

    return teneva.svd(site_order(matrix, rows, columns), e=1e-12, r=max(bonds))


def relative_error(matrix, rows, columns, cores):
    """The relative error, in the Frobenius norm, of cores ``[d, i j, d']`` or ``[d, i, j, d']``, multiplied in float32."""
    tensor = site_order(matrix, rows, columns)
    product = np.ones((1, 1), np.float32)
    for core in cores:
        core = np.asarray(core, np.float32)
        product = (product @ core.reshape(core.shape[0], -1)).reshape(-1, core.shape[-1])
    difference = tensor.reshape(-1) - product.reshape(-1)
    return np.linalg.norm(difference) / np.linalg.norm(matrix)


PEERS = {"numpy": sequential_svd, "torch": with_torch, "tensorly": with_tensorly, "teneva": with_teneva}


def main():
    peer, path, decomposition = sys.argv[1:]
    matrix = np.load(path)
    shape = json.load(open(decomposition))
    arguments = shape["row_factors"], shape["column_factors"], shape["bonds"]
    if peer != "numpy":  # imports the library before the measurement
        PEERS[peer](np.eye(16, dtype=np.float32), [4, 4], [4, 4], [16])
    start = time.perf_counter()
    cores = PEERS[peer](matrix, *arguments)
    print(time.perf_counter() - start, relative_error(matrix, *arguments[:2], cores))


if __name__ == "__main__":
    main()
