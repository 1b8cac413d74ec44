"""Training in the gauge spectral: cores stay isometries, and the singular values are separate parameters."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from . import gauge
from .adapters import Adapter
from .mpo_matrix import MPOMatrix
from .mpo_weight import MPOWeight


class Householder(nn.Module):
    """Orthonormal columns ``[n, r]`` as a product of r reflections, whose vectors are the parameters.

    It is the map ``householder`` of `torch.nn.utils.parametrizations.orthogonal` with two improvements: it multiplies matrices
    (the compact WY form), so that its gradient takes milliseconds instead of seconds, and weight decay does not change the
    signs of the columns, which are buffers.
    """

    def __init__(self, count: int):
        super().__init__()
        self.register_buffer("signs", torch.ones(count))

    def forward(self, x: Tensor) -> Tensor:
        count, dtype = x.shape[1], x.dtype
        x = x if x.device.type == "mps" else x.double()  # in single precision, a few hundred reflections lose a digit
        identity = torch.eye(*x.shape, dtype=x.dtype, device=x.device)
        vectors = x.tril(-1) + identity
        gram = vectors.T @ vectors
        inverse = gram.triu(1) + torch.diag(gram.diagonal() / 2)
        product = torch.linalg.solve_triangular(inverse, vectors[:count].T, upper=True)
        return ((identity - vectors @ product) * self.signs).to(dtype)

    @torch.no_grad()
    def right_inverse(self, frame: Tensor) -> Tensor:
        vectors, factors = torch.geqrf(frame)
        signs = torch.where(vectors.diagonal() < 0, -1.0, 1.0)
        # `geqrf` leaves a vector out if there is nothing to reflect; `forward` reflects in that case too, so the sign is turned.
        self.signs.copy_(torch.where(factors == 0, -signs, signs))
        return vectors.tril(-1)


class Bounded(nn.Module):
    """Singular values strictly between 0 and a bound: ``bound · sigmoid(x)``."""

    def __init__(self, bound: float):
        super().__init__()
        self.bound = bound

    def forward(self, x: Tensor) -> Tensor:
        return self.bound * torch.sigmoid(x)

    def right_inverse(self, values: Tensor) -> Tensor:
        return torch.logit((values / self.bound).clamp(1e-6, 1 - 1e-6))


class Isometry(nn.Module):
    """A core ``[d, i, j, d']`` that is an isometry for any values of its parameters.

    Parameters
    ----------
    core
        an isometry: ``AᵀA = 1`` as a matrix ``[d·i·j, d']``; with ``is_right``, ``BBᵀ = 1`` as a matrix ``[d, i·j·d']``.
    is_right
        whether the core is right of the bond with the singular values.
    """

    def __init__(self, core: Tensor, is_right: bool):
        super().__init__()
        self.shape, self.is_right = tuple(core.shape), is_right
        frame = core.reshape(len(core), -1).T if is_right else core.reshape(-1, core.shape[3])
        self.frame = nn.Parameter(frame.contiguous())
        parametrize.register_parametrization(self, "frame", Householder(frame.shape[1]).to(frame))

    def forward(self) -> Tensor:
        return (self.frame.T if self.is_right else self.frame).reshape(self.shape)


class SpectralMPOWeight(MPOWeight):
    """A chain of isometries and the singular values at its central bond. `take` makes it from another weight.

    Attributes
    ----------
    isometries
        a module for each core.
    singular_values
        ``[d]``, the singular values of the matrix unfolded at the central bond. For a low-rank operator they are those of the
        matrix itself.
    """

    @staticmethod
    def take(weight: MPOWeight, bound: float | None) -> None:
        """Turns a weight into a spectral one in place, so that layers that share it still do.

        Parameters
        ----------
        bound
            an upper bound of the singular values; None for no bound.
        """
        cores = [core.detach() for core in weight.whole_cores()]
        place = cores[0].device, cores[0].dtype
        exact, sigma = gauge.spectral([core.to("cpu", torch.float64).numpy() for core in cores], weight.central)
        del weight.cores
        for name in list(weight._buffers):
            delattr(weight, name)
        weight.__class__ = SpectralMPOWeight
        bond = max(0, weight.central - 1)
        weight.isometries = nn.ModuleList(
            Isometry(torch.from_numpy(np.ascontiguousarray(core)).to(*place), k > bond) for k, core in enumerate(exact)
        )
        weight.singular_values = nn.Parameter(torch.from_numpy(sigma).to(*place))
        if bound is not None:
            parametrize.register_parametrization(weight, "singular_values", Bounded(bound))
        weight.clear_cache()

    @property
    def cores(self) -> list[Tensor]:
        """The whole cores ``[d, i, j, d']``, with the singular values multiplied into the core right of their bond."""
        cores = [isometry() for isometry in self.isometries]
        bond = max(0, self.central - 1)
        cores[bond + 1] = self.singular_values[:, None, None, None] * cores[bond + 1]
        return cores

    @property
    def auxiliary_cores(self) -> list[nn.Parameter]:
        return list(self.isometries.parameters())

    @property
    def central_cores(self) -> list[nn.Parameter]:
        return []

    @property
    def inner_cores(self) -> list[nn.Parameter]:
        return []

    def _shapes(self) -> list[tuple[int, int, int, int]]:
        return [isometry.shape for isometry in self.isometries]


def parametrized(module: nn.Module, bound: float | None = None) -> nn.Module:
    """Changes the operators of a layer or a model, in place, so that training keeps them in the gauge spectral.

    Isometries are products of `Householder` reflections, so that after any step of any optimizer the
    parameters ``singular_values`` are the singular values. `save` writes such operators in the gauge spectral.

    Call this function before you make the optimizer, because it makes new parameters, all of which are trained. It does not
    change adapters. Within `torch.nn.utils.parametrize.cached()` a core that is used several times is computed only once.

    Parameters
    ----------
    module
        a layer made of cores, or a model with such layers.
    bound
        an upper bound of the singular values; larger ones are lowered to it. For low-rank operators it bounds the spectral norm.
        None for no bound.

    Returns
    -------
    Module
        the same module.

    Raises
    ------
    ValueError
        if the bound is not positive, or if an operator shares cores with another or has cores of integers.
    """
    if bound is not None and not bound > 0:
        raise ValueError(f"bound is {bound}; it must be positive")
    weights = [part for part in module.modules() if isinstance(part, MPOMatrix) and not isinstance(part, Adapter)]
    operators = list(dict.fromkeys(operator for weight in weights for operator in weight.operators))
    for operator in operators:
        if operator.shares_cores:
            raise ValueError("an operator shares cores with another, and a core can't be an isometry of both; convert without --share-central")
    for operator in operators:
        if operator.integers:
            raise ValueError("an operator has cores that are stored as integers, which are not trained; convert to floats instead")
    for operator in operators:
        if not isinstance(operator, SpectralMPOWeight):
            SpectralMPOWeight.take(operator, bound)
    for weight in weights:
        weight.clear_cache()
    return module
