"""Training on the manifold of a gauge spectral: cores stay isometries, the singular values are parameters of their own."""

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

    The same map as `torch.nn.utils.parametrizations.orthogonal` has under this name, without its two costs: the product is
    that of matrices (the compact WY form), so that its gradient takes milliseconds and not seconds, and the signs of the
    columns are out of reach of weight decay.
    """

    def __init__(self, count: int):
        super().__init__()
        self.register_buffer("signs", torch.ones(count))

    def forward(self, x: Tensor) -> Tensor:
        count, dtype = x.shape[1], x.dtype
        x = x if x.device.type == "mps" else x.double()  # in single precision a few hundred reflections lose a digit
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
        # Where nothing is left to reflect, the map reflects all the same.
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
    """A core ``[d, i, j, d']`` that is an isometry as a matrix, whatever its parameters are.

    Parameters
    ----------
    core
        ``AᵀA = 1`` as a matrix ``[d·i·j, d']``, or, on the right, ``BBᵀ = 1`` as a matrix ``[d, i·j·d']``.
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
    """A chain of isometries with the singular values at its central bond apart; made of another weight, in its place.

    Attributes
    ----------
    isometries
        one module a core.
    singular_values
        ``[d]``: those of the matrix unfolded at the central bond; of a low-rank operator, of the matrix itself.
    """

    @staticmethod
    def take(weight: MPOWeight, bound: float | None) -> None:
        """Turns a weight into a spectral one in place, so that layers that share it still share it."""
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
        """``[d, i, j, d']``, whole: the singular values are multiplied into the one behind their bond."""
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
    """Lets the operators of a layer, or of a whole model, be trained on the manifold of their gauge spectral, in place.

    Isometries are products of `Householder` reflections, so that after any step of any optimizer the
    parameters ``singular_values`` are the singular values. `save` writes such operators in the gauge spectral.

    Call it before the optimizer is made: the parameters are new ones, all of which are trained. Adapters stay as they are. Within
    `torch.nn.utils.parametrize.cached()` a core that is used several times is computed once.

    Parameters
    ----------
    module
        a layer made of cores, or a model with such layers.
    bound
        what the singular values stay below; of low-rank operators that is the spectral norm. Larger ones are lowered to it.

    Returns
    -------
    Module
        the same.

    Raises
    ------
    ValueError
        for a bound that is not positive, and for operators that share cores with others or have some that stay integers.
    """
    if bound is not None and not bound > 0:
        raise ValueError(f"bound is {bound}; it must be positive")
    weights = [part for part in module.modules() if isinstance(part, MPOMatrix) and not isinstance(part, Adapter)]
    operators = list(dict.fromkeys(operator for weight in weights for operator in weight.operators))
    for operator in operators:
        if operator.shares_cores:
            raise ValueError("an operator shares cores with another, and such cores can't be isometries of both")
    for operator in operators:
        if operator.integers:
            raise ValueError("an operator has cores that are stored as integers; integers are not trained, and they are not isometries")
    for operator in operators:
        if not isinstance(operator, SpectralMPOWeight):
            SpectralMPOWeight.take(operator, bound)
    for weight in weights:
        weight.clear_cache()
    return module
