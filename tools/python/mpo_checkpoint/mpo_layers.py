"""Layers whose weight is an `MPOMatrix`: `MPOLinear`, `MPOConv1D` and `MPOEmbedding`."""

from __future__ import annotations

from torch import Tensor, nn

from .mpo_matrix import MPOMatrix


class MPOLinear(nn.Module):
    """``y = x Wᵀ + b``, as `torch.nn.Linear`, with ``W [out, in]`` made of operators.

    Parameters
    ----------
    weight
        ``W [out, in]``.
    bias
        ``b [out]``; None for no bias.
    """

    def __init__(self, weight: MPOMatrix, bias: Tensor | None = None):
        super().__init__()
        self.out_features, self.in_features = weight.matrix_shape
        self.weight = weight
        self.register_parameter("bias", _parameter(bias))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight(x, self.bias)

    def parametrized(self, bound: float | None = None) -> MPOLinear:
        """Changes the layer so that training keeps it in the gauge spectral, see `mpo_checkpoint.parametrized`."""
        from .spectral import parametrized

        return parametrized(self, bound)


class MPOConv1D(nn.Module):
    """``y = x W + b``, as GPT-2's ``Conv1D``, with ``W [in, out]`` made of operators.

    Parameters
    ----------
    weight
        ``W [in, out]``.
    bias
        ``b [out]``; None for no bias.
    """

    def __init__(self, weight: MPOMatrix, bias: Tensor | None = None):
        super().__init__()
        self.nx, self.nf = weight.matrix_shape
        self.weight = weight
        self.register_parameter("bias", _parameter(bias))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight(x, self.bias, transposed=True)


class MPOEmbedding(nn.Module):
    """``y = W[id]``, as `torch.nn.Embedding`, with ``W [vocabulary, features]`` made of operators.

    Unlike in `torch.nn.Embedding`, the row of ``padding_idx`` is trained like the others, because it is made of the same cores.

    Parameters
    ----------
    weight
        ``W [vocabulary, features]``.
    padding_idx
        the index of the padding token; None if there is none.
    """

    def __init__(self, weight: MPOMatrix, padding_idx: int | None = None):
        super().__init__()
        self.num_embeddings, self.embedding_dim = weight.matrix_shape
        self.padding_idx = padding_idx
        self.weight = weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.weight.rows(ids)


def _parameter(tensor: Tensor | None) -> nn.Parameter | None:
    return tensor if tensor is None or isinstance(tensor, nn.Parameter) else nn.Parameter(tensor)
