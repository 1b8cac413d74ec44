"""How a language model's forward calls the blocks of its trunk, and what it computes before and after them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .objectives import Objective
from .trunk import NoTrunk, Trunk


class _Stop(Exception):
    """Ends a model's forward early."""


class BlockCalls:
    """How a model's forward calls its blocks: with which arguments besides the hidden states, the same for all batches."""

    def __init__(self, trunk: Trunk):
        self.trunk = trunk
        self.arguments: list[tuple[tuple, dict]] = []
        self.inputs: list[Tensor] = []  # the inputs of the first block, batch by batch
        self.returns_tuple = False

    def run(self, index: int, hidden: Tensor) -> Tensor:
        """The hidden states after a block."""
        arguments, named = self.arguments[index]
        result = self.trunk.blocks[index](hidden, *arguments, **named)
        return result[0] if isinstance(result, tuple) else result

    def forward(self, ids: Tensor, seen: Callable[[int, tuple, dict], Tensor]) -> Any:
        """Runs the model's forward with ``seen`` in place of each block.

        Parameters
        ----------
        ids
            token ids ``[samples, positions]``.
        seen
            called with the index of the block, its positional and its named arguments; returns the block's output.
        """
        blocks = self.trunk.blocks

        def stub(index: int) -> Callable[..., Any]:
            def forward(*arguments: Any, **named: Any) -> Any:
                hidden = seen(index, arguments, named)
                return (hidden,) if self.returns_tuple else hidden

            return forward

        for index, block in enumerate(blocks):
            block.forward = stub(index)
        try:
            return self.trunk.model(input_ids=ids, use_cache=False)
        finally:
            for block in blocks:
                del block.forward


def block_calls(trunk: Trunk, batches: list[Tensor]) -> BlockCalls:
    """Runs the part of the model before its first block, for all batches, and records how the blocks are called.

    Raises
    ------
    NoTrunk
        if the forward does more than call one block after the other on the hidden states.
    """
    calls = BlockCalls(trunk)
    depth = len(trunk.blocks)

    def captured(ids: Tensor, until: int) -> list[tuple[Tensor, tuple, dict]]:
        found: list[tuple[Tensor, tuple, dict]] = []

        def seen(index: int, arguments: tuple, named: dict) -> Tensor:
            if index != len(found):
                raise NoTrunk("its forward does not call its blocks in their order")
            named = dict(named)
            hidden = arguments[0] if arguments else named.pop("hidden_states", None)
            if not isinstance(hidden, Tensor) or hidden.ndim != 3:
                raise NoTrunk("its blocks do not take hidden states [samples, positions, features] first")
            found.append((hidden, arguments[1:], named))
            if index == until:
                raise _Stop
            return hidden

        try:
            calls.forward(ids, seen)
        except _Stop:
            return found
        raise NoTrunk("its forward does not call all of its blocks")

    hidden, arguments, named = captured(batches[0][:1], 0)[0]
    with trunk.loaded(0):
        result = trunk.blocks[0](hidden, *arguments, **named)
    calls.returns_tuple = isinstance(result, tuple)
    after = result[0] if calls.returns_tuple else result
    if not isinstance(after, Tensor) or after.shape != hidden.shape:
        raise NoTrunk("its blocks do not give hidden states of the shape they take")
    for ids in batches:
        found = captured(ids, depth - 1)
        calls.inputs.append(found[0][0])
        if not calls.arguments:
            calls.arguments = [(arguments, named) for _, arguments, named in found]
        elif not _are_equal(calls.arguments, [(arguments, named) for _, arguments, named in found]):
            raise NoTrunk("its blocks take other inputs than the hidden states, and these depend on the text")
    return calls


def head_gradients(
    calls: BlockCalls, objective: Objective, ids: Tensor, value: Tensor, sample: int
) -> list[Tensor]:
    """Gradients of the objective in the hidden states after the last block, one for each pass.

    Parameters
    ----------
    ids
        token ids ``[1, positions]``.
    value
        the hidden states ``[1, positions, features]`` after the last block.
    sample
        the number of the sample.
    """
    last = len(calls.trunk.blocks) - 1
    leaf = value.detach().clone().requires_grad_()

    def seen(index: int, arguments: tuple, named: dict) -> Tensor:
        hidden = arguments[0] if arguments else named["hidden_states"]
        return leaf if index == last else hidden

    with torch.enable_grad():
        logits = calls.forward(ids, seen).logits
        values = objective.values(logits, ids, sample)
        return [
            torch.autograd.grad(value, leaf, retain_graph=index + 1 < objective.passes)[0]
            for index, value in enumerate(values)
        ]


def _are_equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return one is other or (isinstance(other, Tensor) and one.shape == other.shape and torch.equal(one, other))
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(_are_equal, one, other))
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(_are_equal(one[k], other[k]) for k in one)
    return one is other or bool(one == other)
