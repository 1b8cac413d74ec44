"""The objectives of a language model whose gradients its statistics contain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

OBJECTIVES = ("loss", "fisher", "projections")


@dataclass(frozen=True)
class Objective:
    """A function of a model's logits whose gradients are taken.

    Attributes
    ----------
    kind
        ``loss``: the negative log-likelihood of the text's own next tokens. ``fisher``: the negative log-likelihood of tokens
        sampled from the model. ``projections``: the inner product of the logits with standard normal numbers.
    passes
        how many gradients are taken of each sample; must be 1 for ``loss``, which has only one.
    seed
        the seed of the random numbers, which are different for each sample.
    first
        the number of the first sample, if only a part of the text is run.

    Raises
    ------
    ValueError
        if there is no such kind, or if it does not allow this number of passes.
    """

    kind: str = "loss"
    passes: int = 1
    seed: int = 0
    first: int = 0

    def __post_init__(self) -> None:
        if self.kind not in OBJECTIVES:
            raise ValueError(f"unknown objective '{self.kind}'; choose one of {', '.join(OBJECTIVES)}")
        if self.passes < 1 or (self.kind == "loss" and self.passes > 1):
            raise ValueError(f"passes is {self.passes}; it must be 1 for 'loss', at least 1 for 'fisher' and 'projections'")

    def values(self, logits: Tensor, ids: Tensor, sample: int) -> Iterator[Tensor]:
        """The value of the objective for each pass.

        Parameters
        ----------
        logits
            ``[1, positions, tokens]``.
        ids
            ``[1, positions]``.
        sample
            the number of the sample among those that are run.
        """
        logits = logits[0].float()
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.first + sample)
        for _ in range(self.passes):
            if self.kind == "projections":
                yield (torch.randn(logits.shape, generator=generator).to(logits) * logits).sum()
            elif self.kind == "fisher":
                chances = logits.detach().softmax(-1).cpu()
                tokens = torch.multinomial(chances, 1, generator=generator)[:, 0].to(logits.device)
                yield nn.functional.cross_entropy(logits, tokens, reduction="sum")
            else:
                yield nn.functional.cross_entropy(logits[:-1], ids[0, 1:], reduction="sum")

    def __str__(self) -> str:
        if self.kind == "loss":
            return "the loss of the text's next tokens"
        what = "the loss of sampled next tokens" if self.kind == "fisher" else "random projections of the logits"
        return f"{self.passes} × {what}, seed {self.seed}"
