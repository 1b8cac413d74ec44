"""`MPOBlockWeight`: a matrix of blocks, each a sum of ranges of operators."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from .mpo_matrix import MPOMatrix
from .mpo_weight import MPOWeight
from .records import Term


class MPOBlockWeight(MPOMatrix):
    """A matrix ``[I, J]`` of blocks, stacked along the rows; a block is a sum of ranges of operators.

    Parameters
    ----------
    operators
        the operators by name; other weights may use them too.
    blocks
        the blocks, each a list of terms, which are added.
    keeps_matrix
        whether the matrix may be kept in memory, see `MPOMatrix`.
    """

    def __init__(self, operators: dict[str, MPOWeight], blocks: Sequence[Sequence[Term]], keeps_matrix: bool = True):
        super().__init__((sum(block[0].shape[0] for block in blocks), blocks[0][0].shape[1]), keeps_matrix)
        self._names = list(operators)
        self.parts = nn.ModuleList(operators.values())
        self.blocks = [[(self._names.index(term.operator), term) for term in block] for block in blocks]

    @property
    def operators(self) -> list[MPOWeight]:
        return list(self.parts)

    def built(self) -> Tensor:
        matrices = [part.built() for part in self.parts]
        return torch.cat(
            [sum(matrices[k][slice(*t.rows), slice(*t.columns)] for k, t in block) for block in self.blocks]
        )

    def factor_rank(self) -> int | None:
        ranks = [self.parts[k].factor_rank() for k, _ in self.blocks[0]]
        return sum(r for r in ranks if r is not None) if len(self.blocks) == 1 and None not in ranks else None

    def factors(self) -> tuple[Tensor, Tensor]:
        terms = [(self.parts[k].factors(), term) for k, term in self.blocks[0]]
        ups = [up[slice(*term.rows)] for (up, _), term in terms]
        downs = [down[:, slice(*term.columns)] for (_, down), term in terms]
        return (ups[0], downs[0]) if len(terms) == 1 else (torch.cat(ups, 1), torch.cat(downs, 0))

    def build_cost(self) -> int:
        return sum(part.build_cost() for part in self.parts)

    def product(self, x: Tensor, transposed: bool) -> Tensor:
        sizes = [block[0][1].shape[0] for block in self.blocks]
        inputs = x.split(sizes, -1) if transposed else [x] * len(sizes)
        results = []
        for part, block in zip(inputs, self.blocks):
            terms = [self._term_product(self.parts[k], term, part, transposed) for k, term in block]
            results.append(sum(terms[1:], start=terms[0]))
        return sum(results[1:], start=results[0]) if transposed else torch.cat(results, -1)

    @staticmethod
    def _term_product(operator: MPOWeight, term: Term, x: Tensor, transposed: bool) -> Tensor:
        begin, end = term.columns
        if transposed:
            return operator.product(x, True, term.rows)[:, begin:end]
        return operator.product(functional.pad(x, (begin, operator.matrix_shape[1] - end)), False, term.rows)

    def product_cost(self, transposed: bool) -> int:
        return sum(self.parts[k].product_cost(transposed, term.rows) for block in self.blocks for k, term in block)

    def looked_up(self, ids: Tensor) -> Tensor:
        result = torch.zeros(len(ids), self.matrix_shape[1], dtype=self.dtype, device=self.device)
        start = 0
        for block in self.blocks:
            size = block[0][1].shape[0]
            here = ((ids >= start) & (ids < start + size)).nonzero()[:, 0]
            for k, term in block:
                rows = self.parts[k].looked_up(ids[here] - start + term.rows[0])
                result = result.index_add(0, here, rows[:, slice(*term.columns)])
            start += size
        return result

    def lookup_cost(self) -> int:
        return max(sum(self.parts[k].lookup_cost() for k, _ in block) for block in self.blocks)

    def extra_repr(self) -> str:
        return f"{self.matrix_shape[0]} × {self.matrix_shape[1]}, blocks {len(self.blocks)}"
