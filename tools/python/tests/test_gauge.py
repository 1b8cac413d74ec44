"""Gauges change cores, never the matrix."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
from mpo_checkpoint import gauge
from reference import central_index, full_bonds, multiply


def random_chain(seed):
    """Cores of random factors and feasible bonds, some at full rank, and the central index."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 6))
    rows, columns = rng.integers(1, 5, count).tolist(), rng.integers(1, 5, count).tolist()
    bonds = [1, *(int(rng.integers(1, full + 1)) if rng.random() < 0.7 else full for full in full_bonds(rows, columns)), 1]
    for k in range(1, count):
        bonds[k] = min(bonds[k], bonds[k - 1] * rows[k - 1] * columns[k - 1])
    for k in range(count - 1, 0, -1):
        bonds[k] = min(bonds[k], bonds[k + 1] * rows[k] * columns[k])
    cores = [rng.standard_normal((bonds[k], rows[k], columns[k], bonds[k + 1])) for k in range(count)]
    return cores, central_index(rows, columns)


def damaged(cores, how):
    if how == "zero":
        return [np.zeros_like(core) for core in cores]
    if how == "constant":
        return [np.ones_like(core) for core in cores]
    if how == "duplicate rows":
        return [np.repeat(core[:, :1], core.shape[1], 1) for core in cores]
    return [cores[0] * {"tiny": 1e-30, "huge": 1e30}.get(how, 1), *cores[1:]]


def assert_same_matrix(found, expected):
    expected = multiply(expected)
    assert np.linalg.norm(multiply(found) - expected) <= 1e-12 * np.linalg.norm(expected)


@pytest.mark.parametrize("how", ["random", "zero", "constant", "duplicate rows", "tiny", "huge"])
@pytest.mark.parametrize("seed", range(20))
class TestEveryChain:
    def test_compact(self, seed, how):
        cores, central = random_chain(seed)
        cores = damaged(cores, how)
        found, pivots = gauge.compact(cores, central)
        assert_same_matrix(found, cores)
        assert pivots[central] is None
        stored = found[central].size
        for k, (core, places) in enumerate(zip(found, pivots)):
            if k == central:
                continue
            matrix = core.reshape(-1, core.shape[3]) if k < central else core.reshape(len(core), -1).T
            np.testing.assert_array_equal(matrix[places], np.eye(matrix.shape[1]))
            assert (np.diff(places) > 0).all()
            assert np.abs(matrix).max() <= gauge.LARGEST + 1e-9
            stored += matrix.size - len(places) ** 2
        bonds = [core.shape[3] for core in cores[:-1]]
        assert stored == sum(core.size for core in cores) - sum(bond**2 for bond in bonds)
        shapes = [core.shape for core in cores]
        if bonds == full_bonds([s[1] for s in shapes], [s[2] for s in shapes]):
            assert stored == prod(s[1] * s[2] for s in shapes)

    def test_canonical(self, seed, how):
        cores, central = random_chain(seed)
        cores = damaged(cores, how)
        found = gauge.canonical(cores, central)
        assert_same_matrix(found, cores)
        for k, core in enumerate(found):
            if k != central:
                matrix = core.reshape(-1, core.shape[3]) if k < central else core.reshape(len(core), -1).T
                np.testing.assert_allclose(matrix.T @ matrix, np.eye(matrix.shape[1]), atol=1e-12)

    def test_spectral(self, seed, how):
        cores, central = random_chain(seed)
        cores = damaged(cores, how)
        found, sigma = gauge.spectral(cores, central)
        bond = max(0, central - 1)
        whole = [core * sigma if k == bond else core for k, core in enumerate(found)]
        assert_same_matrix(whole, cores)
        assert (np.diff(sigma) <= 0).all() and [c.shape for c in found] == [c.shape for c in cores]
        expected = np.linalg.svd(_unfolded(cores, bond), compute_uv=False)[: len(sigma)]
        np.testing.assert_allclose(sigma, expected, atol=1e-12 * max(expected[0], 1e-300), rtol=1e-10)


def _unfolded(cores, bond):
    """``[left of a bond, right of it]``."""
    left = cores[0].reshape(-1, cores[0].shape[3])
    for core in cores[1 : bond + 1]:
        left = np.tensordot(left, core, 1).reshape(-1, core.shape[3])
    right = cores[-1].reshape(len(cores[-1]), -1)
    for core in cores[-2:bond:-1]:
        right = np.tensordot(core, right, 1).reshape(len(core), -1)
    return left @ right


def test_pivots_of_many_columns_are_found():
    matrix = np.linalg.qr(np.random.default_rng(0).standard_normal((400, 150)))[0]
    pivots, fixed = gauge.pivot_rows(matrix)
    assert len(set(pivots)) == 150 and np.abs(fixed).max() <= gauge.LARGEST + 1e-9
    np.testing.assert_allclose(fixed @ matrix[pivots], matrix, atol=1e-12)
