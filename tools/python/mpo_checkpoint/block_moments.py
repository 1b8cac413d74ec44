"""Second moments of the linear layers of a block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .experts import ExpertCalls, ExpertPart
from .layers import Kind
from .moments import Moment
from .statistics import Statistics, packed
from .statistics_writer import StatisticsWriter
from .trunk import NoTrunk


@dataclass(frozen=True)
class Layer:
    """A linear layer of a block.

    Attributes
    ----------
    name
        the name of its matrix in the checkpoint.
    shape
        the shape of its weight.
    stack
        the name of the module's stacked parameter that contains the matrix; None if the matrix is the module's weight.
    part
        the part of the stack that is the matrix.
    """

    name: str
    module: nn.Module
    kind: Kind
    shape: torch.Size
    stack: str | None = None
    part: ExpertPart | None = None

    @property
    def sides(self) -> tuple[str, str]:
        """The side of the inputs and the side of the outputs: ``"row"`` or ``"column"``."""
        return ("column", "row") if self.kind is Kind.LINEAR else ("row", "column")


class _UpperMoment(Moment):
    """A sum of second moments of which only the upper triangle is valid: blocks below the diagonal are not computed."""

    def add(self, rows: Tensor, coupling: Tensor | None = None) -> None:
        rows = rows.flatten(0, 1)
        if self.sum.ndim == 1:
            self.sum += rows.square().sum(0).cpu()
            return
        size = self.sum.shape[0]
        step = max(256, -(-size // 6))
        for start in range(0, size, step):
            self.sum[start : start + step, start:] += (rows[:, start : start + step].T @ rows[:, start:]).cpu()


class BlockMoments:
    """The second moments of a block's layers. Layers that read the same tensor share the moment of their inputs."""

    def __init__(self, layers: list[Layer], max_gram: int):
        self.layers, self.max_gram = layers, max_gram
        self.inputs: list[_UpperMoment] = []
        self.reads: dict[int, int] = {}  # for each layer, the index of its input in `inputs`
        self.routed: dict[int, int] = {}  # for each input of an expert, how many positions were routed to it
        self.gradients = [_UpperMoment(size := self._size(layer, 1), size > max_gram) for layer in layers]

    def _size(self, layer: Layer, side: int) -> int:
        return layer.shape[1 if layer.sides[side] == "column" else 0]

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Adds the inputs of layers that run within this context, and the gradients that reach their outputs later."""
        seen: list[tuple[Tensor, int]] = []  # the tensors read in this run, each with its index in `inputs`

        def hook(place: int, layer: Layer) -> Callable[..., None]:
            def forward_hook(module: nn.Module, arguments: tuple, named: dict, result: Tensor) -> None:
                value = arguments[0] if arguments else next(iter(named.values()))
                read = next((index for tensor, index in seen if tensor is value), None)
                if read is None:
                    read = self.reads.get(place, len(self.inputs))
                    if read == len(self.inputs):
                        size = self._size(layer, 0)
                        self.inputs.append(_UpperMoment(size, size > self.max_gram))
                    seen.append((value, read))
                    self.inputs[read].add(_rows(value))
                if self.reads.setdefault(place, read) != read:
                    raise NoTrunk("its layers do not read the same tensors for every sample")
                result.register_hook(lambda gradient: self.gradients[place].add(_rows(gradient)))

            return forward_hook

        handles = [
            layer.module.register_forward_hook(hook(place, layer), with_kwargs=True)
            for place, layer in enumerate(self.layers)
            if layer.part is None
        ]
        experts: dict[tuple[int, int], list[int]] = {}  # the layers of each expert, by parameter and expert
        stacks = {}
        for place, layer in enumerate(self.layers):
            if layer.part is not None:
                stack = layer.module._parameters[layer.stack]
                stacks[id(stack)] = stack
                experts.setdefault((id(stack), layer.part.expert), []).append(place)

        def seen_expert(stack: Tensor, expert: int, value: Tensor, result: Tensor) -> None:
            if places := experts.get((id(stack), expert)):
                self._add_expert(places, value, result)

        try:
            with ExpertCalls(list(stacks.values()), seen_expert) if stacks else nullcontext():
                yield
        finally:
            for handle in handles:
                handle.remove()

    def _add_expert(self, places: list[int], value: Tensor, result: Tensor) -> None:
        """Adds one call of an expert, whose matrices all read the same positions."""
        read = self.reads.setdefault(places[0], len(self.inputs))
        if read == len(self.inputs):
            size = self._size(self.layers[places[0]], 0)
            self.inputs.append(_UpperMoment(size, size > self.max_gram))
        self.reads.update((place, read) for place in places)
        rows = _rows(value)
        self.inputs[read].add(rows)
        self.routed[read] = self.routed.get(read, 0) + rows.shape[1]

        def add_gradients(gradient: Tensor) -> None:
            for place in places:
                part = self.layers[place].part
                self.gradients[place].add(_rows(gradient[..., part.start : part.stop]))

        result.register_hook(add_gradients)

    def write(
        self, writer: StatisticsWriter, samples: int, positions: int, statistics: Statistics, same: dict[str, str]
    ) -> None:
        """Writes the moments of the layers that inputs and gradients reached; the others are added to ``statistics.skipped``.

        Parameters
        ----------
        samples
            the number of gradients that were taken: samples times passes.
        positions
            the number of positions of all samples.
        same
            gets, for each side that is not stored, the name of the tensor that has its values.

        Raises
        ------
        ValueError
            if a moment is NaN or infinite.
        """
        written: dict[int, str] = {}
        for place, layer in enumerate(self.layers):
            gradients = self.gradients[place]
            moments = [gradients.sum] + ([self.inputs[self.reads[place]].sum] if place in self.reads else [])
            if not all(moment.isfinite().all() for moment in moments):
                raise ValueError(
                    f"{layer.name}: its inputs or gradients are NaN or infinite; check the model's weights"
                )
            if place not in self.reads or not gradients.trace:
                statistics.skipped.append(layer.name)
                continue
            statistics.written.append(layer.name)
            input_side, output_side = layer.sides
            if input_side == "row":
                statistics.input_rows.append(layer.name)
            kind, value = _entry(gradients.sum / samples)
            writer.add(f"{layer.name}.{output_side}_{kind}", value)
            read = self.reads[place]
            kind, value = _entry(self.inputs[read].sum / self.routed.get(read, positions))
            name = f"{layer.name}.{input_side}_{kind}"
            if read in written:
                same[name] = written[read]
            else:
                writer.add(name, value)
                written[read] = name


def _entry(moment: Tensor) -> tuple[str, Any]:
    if moment.ndim == 1:
        return "scale", moment.sqrt().numpy()
    return "gram", packed(moment.numpy())


def _rows(values: Tensor) -> Tensor:
    """``[1, positions, n]`` of ``[..., n]``."""
    return values.detach().reshape(1, -1, values.shape[-1])
