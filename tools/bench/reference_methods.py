"""Published one-shot low-rank methods for language models, implemented from their definitions in PyTorch.

Each approximates ``W [m, n]`` by the SVD of ``A W B`` truncated to rank r, and stores r (m + n) numbers:

    plain SVD       A = B = 1
    ASVD            B = diag(mean |x|) ** 0.5, of the inputs x (arXiv 2312.05821)
    FWSVD           A = diag(sqrt(sum of the row's Fisher information)) (arXiv 2207.00112)
    SVD-LLM         B = the Cholesky factor of the inputs' second moment (arXiv 2403.07378)
    two-sided SVD   as SVD-LLM, and A = the Cholesky factor of the output gradients' second moment (nearest published method: IO-SVD,
                    arXiv 2605.15626)

The first four give every matrix the same ratio; the last one chooses the ranks over all matrices by the error in its metric.
"""

from __future__ import annotations

import json
from fnmatch import fnmatchcase

import torch
from mpo_checkpoint.statistics import unpacked
from safetensors import safe_open

GLOBAL = "two-sided SVD, global ranks"
METHODS = ("SVD-LLM", "ASVD", "FWSVD", "plain SVD", GLOBAL)


class Factorised:
    """The SVD of ``A W B``, which gives the best approximation of every rank.

    Attributes
    ----------
    parameters, errors
        for each rank, from 0 to full: the numbers stored, and the squared error of ``A W B``.
    """

    def __init__(self, weight, left, right):
        self.weight, self.left, self.right = weight, left, right
        whitened = _times(left, weight.double(), right)
        u, self.s, v = torch.linalg.svd(whitened.float(), full_matrices=False)
        self.u, self.v = u, v
        self.parameters = torch.arange(len(self.s) + 1) * sum(weight.shape)
        self.errors = torch.cat([self.s.double().square().flip(0).cumsum(0).flip(0), torch.zeros(1).double()])
        dense = self.parameters >= weight.numel()  # the factors would not be smaller, so the matrix stays dense
        self.parameters[dense], self.errors[dense] = weight.numel(), 0.0

    def truncated(self, rank):
        if self.parameters[rank] == self.weight.numel():
            return self.weight
        inner = ((self.u[:, :rank] * self.s[:rank]) @ self.v[:rank]).double()
        return _divided(self.left, inner, self.right).float()


def _times(left, matrix, right):
    """``leftᵀ matrix right``; a vector stands for a diagonal matrix, None for the identity."""
    if left is not None:
        matrix = left[:, None] * matrix if left.ndim == 1 else left.T @ matrix
    if right is not None:
        matrix = matrix * right if right.ndim == 1 else matrix @ right
    return matrix


def _divided(left, matrix, right):
    """The inverse of `_times`: the matrix from which `_times` makes ``matrix``."""
    if left is not None:
        matrix = (
            matrix / left[:, None] if left.ndim == 1 else torch.linalg.solve_triangular(left.T, matrix, upper=True)
        )
    if right is not None:
        matrix = (
            matrix / right if right.ndim == 1 else torch.linalg.solve_triangular(right, matrix, upper=False, left=False)
        )
    return matrix


class ReferenceMethods:
    """The methods for those matrices of a causal language model that a glob selects.

    Parameters
    ----------
    model
        a transformers model whose parameters have the names of the checkpoint.
    statistics
        a file that ``mpo_checkpoint calibrate`` wrote.
    include
        the glob.
    """

    needs_samples = ("ASVD", "FWSVD")

    def __init__(self, model, statistics, include):
        self.model = model
        self.statistics = safe_open(statistics, "pt")
        self.same = json.loads(self.statistics.metadata().get("same", "{}"))
        self.weights = {
            name: parameter.data
            for name, parameter in model.named_parameters()
            if parameter.ndim == 2 and fnmatchcase(name, include)
        }
        self.scales, self.fisher = {}, {}

    def see(self, samples):
        """Computes, at the first call, the mean sizes of inputs and the Fisher information of rows from samples ``[count, positions]``."""
        if self.fisher:
            return
        modules = {f"{path}.weight": module for path, module in self.model.named_modules()}
        sums = {name: torch.zeros(weight.shape[1]).double() for name, weight in self.weights.items()}

        def counting(name):
            def count(module, arguments):  # returns nothing, because a result would replace the input
                sums[name] += arguments[0].detach().abs().flatten(0, -2).sum(0).double()

            return count

        handles = [modules[name].register_forward_pre_hook(counting(name)) for name in self.weights]
        fisher = {name: torch.zeros(weight.shape[0]).double() for name, weight in self.weights.items()}
        parameters = dict(self.model.named_parameters())
        for name, parameter in parameters.items():
            parameter.requires_grad_(name in self.weights)
        for ids in samples:
            logits = self.model(input_ids=ids[None, :], use_cache=False).logits[0]
            torch.nn.functional.cross_entropy(logits[:-1], ids[1:]).backward()
            for name in self.weights:
                fisher[name] += parameters[name].grad.square().sum(1).double()
                parameters[name].grad = None
        for handle in handles:
            handle.remove()
        self.model.requires_grad_(False)
        self.scales = {name: value / samples.numel() for name, value in sums.items()}
        self.fisher = fisher

    def _root(self, name, side, ridge):
        key = f"{name}.{side}_gram"
        gram = self.statistics.get_tensor(self.same.get(key, key))
        gram = torch.from_numpy(unpacked(gram.numpy()) if gram.ndim == 1 else gram.numpy()).double()
        return torch.linalg.cholesky(gram + ridge * gram.diagonal().mean() * torch.eye(len(gram)).double())

    def factorised(self, method):
        """Every matrix with the factors A and B of the method."""
        sides = {
            "plain SVD": lambda name: (None, None),
            "ASVD": lambda name: (None, self.scales[name].clamp(min=1e-6).sqrt()),
            "FWSVD": lambda name: (self.fisher[name].clamp(min=1e-30).sqrt(), None),
            "SVD-LLM": lambda name: (None, self._root(name, "column", 1e-4)),
            GLOBAL: lambda name: (self._root(name, "row", 0.1), self._root(name, "column", 1e-4)),
        }[method]
        return {name: Factorised(weight, *sides(name)) for name, weight in self.weights.items()}

    def truncated(self, matrices, ratio, method):
        """Names and approximations that keep ``ratio`` of the parameters."""
        ranks = _global_ranks(matrices, ratio) if method == GLOBAL else _uniform_ranks(matrices, ratio)
        return ((name, matrix.truncated(ranks[name])) for name, matrix in matrices.items())


def _uniform_ranks(matrices, ratio):
    return {name: int(ratio * m.weight.numel() / sum(m.weight.shape)) for name, m in matrices.items()}


def _global_ranks(matrices, ratio):
    """The ranks with the least total error that keep ``ratio`` of all parameters; a Lagrange multiplier is the price of a number."""
    budget = ratio * sum(m.weight.numel() for m in matrices.values())

    def ranks(price):
        return {name: int((m.errors + price * m.parameters).argmin()) for name, m in matrices.items()}

    low, high = 0.0, float(max(m.errors[0] for m in matrices.values()))
    for _ in range(100):
        price = (low + high) / 2
        fits = sum(int(matrices[name].parameters[rank]) for name, rank in ranks(price).items()) <= budget
        low, high = (low, price) if fits else (price, high)
    return ranks(high)
