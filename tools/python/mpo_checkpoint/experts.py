"""Experts that a model stacks in one parameter ``[experts, rows, columns]``, as matrices of its checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .names import checkpoint_name

# The names, in a checkpoint, of the matrices that one expert of the parameter has below each other.
LEAVES = {"gate_up_proj": (("gate_proj", "up_proj"), ("w1", "w3")), "down_proj": (("down_proj",), ("w2",))}


@dataclass(frozen=True)
class ExpertPart:
    """Rows ``start`` to ``stop`` (exclusive) of one expert.

    Attributes
    ----------
    source
        the tensor of the checkpoint that has these rows.
    name
        the name of the matrix in a conversion: that of the tensor, or ``<tensor>.<expert>`` if the tensor is a stack too.
    """

    source: str
    name: str
    expert: int
    start: int
    stop: int


def checkpoint_names(name: str, stored: Collection[str], prefix: str) -> str | None:
    """As `names.checkpoint_name`, but also finds the name that Mixtral's checkpoints have for the block of experts."""
    found = checkpoint_name(name, stored, prefix)
    return found or checkpoint_name(name.replace(".mlp.", ".block_sparse_moe."), stored, prefix)


def expert_parts(name: str, shape: torch.Size, stored: Collection[str], prefix: str) -> list[ExpertPart] | None:
    """The matrices of a stacked parameter, expert by expert; None if it is not a stack or the checkpoint lacks one of them."""
    head, _, leaf = name.rpartition(".")
    if leaf not in LEAVES or len(shape) != 3:
        return None
    count, rows = shape[:2]
    if (stack := checkpoint_names(name, stored, prefix)) is not None:
        return [ExpertPart(stack, f"{stack}.{expert}", expert, 0, rows) for expert in range(count)]
    for leaves in LEAVES[leaf]:
        size = rows // len(leaves)
        parts = [
            ExpertPart(source, source, expert, index * size, (index + 1) * size)
            for expert in range(count)
            for index, part in enumerate(leaves)
            if (source := checkpoint_names(f"{head}.{expert}.{part}.weight", stored, prefix)) is not None
        ]
        if len(parts) == count * len(leaves):
            return parts
    return None


class ExpertCalls(TorchFunctionMode):
    """Observes products with single experts of stacked parameters while it is active.

    Parameters
    ----------
    stacks
        the parameters.
    seen
        called for each product with the parameter, the number of the expert, the expert's input and its output.
    """

    def __init__(self, stacks: list[Tensor], seen: Callable[[Tensor, int, Tensor, Tensor], None]):
        super().__init__()
        self._stacks = {id(stack): stack for stack in stacks}
        self._seen = seen

    def __torch_function__(self, function: Any, types: Any, arguments: tuple = (), named: dict | None = None) -> Any:
        result = function(*arguments, **(named or {}))
        if function is Tensor.__getitem__ and id(arguments[0]) in self._stacks:
            index = arguments[1]
            if isinstance(index, int) or (isinstance(index, Tensor) and index.ndim == 0):
                result._expert = (arguments[0], int(index))
        elif function is nn.functional.linear and len(arguments) > 1 and hasattr(arguments[1], "_expert"):
            self._seen(*arguments[1]._expert, arguments[0], result)  # type: ignore[call-arg]
        return result
