"""Collects second moments of the inputs and the output gradients of a network's layers.

For one layer ``y = W x`` and a small change ``D`` of its weight, the network's output ``o`` changes by ``J D x``, with
``J`` the Jacobian of the output in ``y``. Gradients of random projections ``r·o`` with independent standard normal ``r``
have the second moment ``E[g gᵀ] = JᵀJ``, so ``tr(G D S Dᵀ)`` with ``S = E[x xᵀ]`` and ``G = E[g gᵀ]`` estimates the
squared change of the output, without labels and in the same unit for every layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .layers import Kind, kind_of
from .statistics import Statistics

Forward = Callable[[nn.Module, Any], Tensor]


def attention_mask(batch: Any) -> Tensor | None:
    """The mask ``[samples, positions]`` a tokenizer puts beside its ids, 0 for padding."""
    return batch.get("attention_mask") if isinstance(batch, Mapping) or hasattr(batch, "get") else None


def collect_statistics(
    model: nn.Module,
    batches: Iterable[Any],
    forward: Forward,
    *,
    mask: Callable[[Any], Tensor | None] = attention_mask,
    loss: Callable[[Tensor, Any], Tensor] | None = None,
    projections: int = 4,
    seed: int = 0,
    names: Callable[[str], str | None] = lambda name: name,
    include: Iterable[str] = ("*",),
    exclude: Iterable[str] = (),
    min_side: int = 64,
    max_gram: int = 8192,
    description: str = "",
) -> Statistics:
    """Runs batches through a model and collects both second moments of its linear and embedding layers.

    The model is left as it was: its mode, its parameters and what of them requires gradients.

    Args:
        model: any module; layers are found by their class (``Linear``, ``Embedding``, GPT-2's ``Conv1D``) and by being
            called, so what is computed from a weight directly is not seen.
        batches: whatever ``forward`` takes; the first axis of its result counts the samples.
        forward: of model and batch: the output whose change matters, ``[samples, …]``, differentiable.
        mask: of a batch: 1 where there is no padding, ``[samples, positions]``; or None.
        loss: of output and batch: a loss per sample ``[samples]``, or their sum (not the mean). Its gradients are used
            instead of those of random projections.
        projections: random projections of each output, a backward pass each.
        seed: of the projections.
        names: of a model's parameter name: the tensor's name in the checkpoint, or None to leave it out.
        include: globs of checkpoint names.
        exclude: globs of checkpoint names, stronger than ``include``.
        min_side: matrices with a smaller side are left out, as the conversion leaves them dense.
        max_gram: sides larger than this get a scale instead of a gram matrix.
        description: for the file's metadata.
    """
    weights = _find_weights(model, names, tuple(include), tuple(exclude), min_side, max_gram)
    if not weights:
        raise ValueError("no matrix of the model is selected; see include, exclude and min_side")
    passes = 1 if loss else projections
    if passes < 1:
        raise ValueError("at least one projection is needed")
    samples = tokens = 0
    scope = _Scope()
    generator = torch.Generator().manual_seed(seed)
    handles = [
        use.module.register_forward_hook(use.hook(scope), with_kwargs=True) for weight in weights for use in weight.uses
    ]
    training = {module: module.training for module in model.modules()}
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        model.eval()
        for parameter in learning:
            parameter.requires_grad_(False)
        with torch.enable_grad():
            for batch in batches:
                scope.mask = mask(batch)
                result = forward(model, batch)
                if not result.requires_grad:
                    raise ValueError("the output does not depend on any layer the statistics are collected of")
                samples += result.shape[0]
                tokens += int(scope.mask.sum()) if scope.mask is not None else result.shape[0]
                for index in range(passes):
                    value = loss(result, batch) if loss else _projection(result, scope.mask, generator)
                    value.sum().backward(retain_graph=index + 1 < passes)
    finally:
        for handle in handles:
            handle.remove()
        for parameter in learning:
            parameter.requires_grad_(True)
        for module, mode in training.items():
            module.training = mode

    statistics = Statistics({}, samples, tokens, description)
    for weight in weights:
        tensors = weight.tensors(samples * passes)
        statistics.tensors.update(tensors)
        if not tensors:
            statistics.skipped.append(weight.name)
    return statistics


def _projection(result: Tensor, mask: Tensor | None, generator: torch.Generator) -> Tensor:
    """``r·o`` for a standard normal ``r``, without the positions that are padding."""
    direction = torch.randn(result.shape, generator=generator).to(result)
    if mask is not None and result.ndim > 2 and result.shape[:2] == mask.shape:
        direction = direction * mask.reshape(*mask.shape, *(1,) * (result.ndim - 2)).to(result)
    return direction * result


@dataclass
class _Scope:
    """What the hooks have to know of the batch that runs."""

    mask: Tensor | None = None

    def weights(self, shape: torch.Size) -> Tensor | None:
        """How often each position of a layer's input counts, flat; None where all count once."""
        if self.mask is None:
            return None
        if shape.numel() == self.mask.numel() and shape[0] in (self.mask.shape[0], self.mask.numel()):
            return self.mask.reshape(-1).double()
        if len(shape) == 2 and shape[0] == 1 and shape[1] == self.mask.shape[1]:
            return self.mask.sum(0).double()  # position ids, looked up once for all samples
        return None


class _Moment:
    """A sum of second moments, ``[n, n]``, or its diagonal ``[n]``.

    Products of a batch are float32 (float64 for float64 layers), their sum over batches is float64.
    """

    def __init__(self, size: int, is_diagonal: bool):
        self.sum = torch.zeros(size if is_diagonal else (size, size), dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        """Adds the second moment of ``rows [positions, n]``."""
        rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
        self.sum += (rows.square().sum(0) if self.sum.ndim == 1 else rows.T @ rows).cpu()

    def add_diagonal(self, values: Tensor) -> None:
        self.sum += values.double().cpu()


class _Use:
    """A module that multiplies with a weight: the moments on the side it reads and on the side it writes."""

    def __init__(self, module: nn.Module, kind: Kind, shape: torch.Size, max_gram: int):
        rows, columns = shape
        self.module, self.kind = module, kind
        read, written = (columns, rows) if kind is Kind.LINEAR else (rows, columns)
        self.inputs = _Moment(read, kind is Kind.EMBEDDING or read > max_gram)
        self.gradients = _Moment(written, written > max_gram)
        self.positions = 0.0

    def hook(self, scope: _Scope) -> Callable[..., Tensor | None]:
        def forward_hook(module: nn.Module, arguments: tuple, named: dict, result: Tensor) -> Tensor | None:
            value = (arguments[0] if arguments else next(iter(named.values()))).detach()
            ids = self.kind is Kind.EMBEDDING
            weights = scope.weights(value.shape if ids else value.shape[:-1])
            self._add_inputs(value.reshape(-1) if ids else value.reshape(-1, value.shape[-1]), weights)
            replaced = None
            if not result.requires_grad:  # nothing before it needs gradients, but what it writes does
                result = replaced = result.detach().requires_grad_().clone()
            if result.requires_grad:
                result.register_hook(lambda gradient: self._add_gradients(gradient, weights))
            return replaced

        return forward_hook

    def _add_inputs(self, values: Tensor, weights: Tensor | None) -> None:
        self.positions += len(values) if weights is None else float(weights.sum())
        if self.kind is Kind.EMBEDDING:
            self.inputs.add_diagonal(torch.bincount(values, weights, minlength=len(self.inputs.sum)))
        else:
            self.inputs.add(values if weights is None else values[weights != 0])

    def _add_gradients(self, gradient: Tensor, weights: Tensor | None) -> None:
        rows = gradient.detach().reshape(-1, gradient.shape[-1])
        self.gradients.add(rows if weights is None else rows[weights != 0])

    def factors(self, gradients: int) -> tuple[Tensor, Tensor] | None:
        """The moments of rows and columns; None when nothing came through.

        Inputs are a mean over positions, gradients a mean over samples of the sum over positions: their product is the
        expected change of one sample's output.
        """
        if self.positions == 0 or not float(self.gradients.sum.abs().sum()):
            return None
        inputs, positions = self.inputs.sum, self.positions
        if self.kind is Kind.EMBEDDING:  # one occurrence more of each row, so that unseen ones matter a little
            inputs, positions = inputs + 1, positions + len(inputs)
        read, written = inputs / positions, self.gradients.sum / gradients
        return (written, read) if self.kind is Kind.LINEAR else (read, written)


class _Weight:
    """A matrix and all modules that use it: several where weights are tied."""

    def __init__(self, name: str, uses: list[_Use]):
        self.name, self.uses = name, uses

    def tensors(self, gradients: int) -> dict[str, np.ndarray]:
        parts = [factors for use in self.uses if (factors := use.factors(gradients)) is not None]
        if not parts:
            return {}
        rows, columns = parts[0] if len(parts) == 1 else _one_product(parts)
        return {**_entries(f"{self.name}.output", rows), **_entries(f"{self.name}.input", columns)}


def _one_product(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """One Kronecker product in the place of a sum of them: sides of equal trace are added."""

    def trace(moment: Tensor) -> float:
        return float((moment if moment.ndim == 1 else moment.diagonal()).sum())

    balances = [(trace(columns) / trace(rows)) ** 0.5 for rows, columns in parts]
    rows = [rows * balance for (rows, _), balance in zip(parts, balances)]
    columns = [columns / balance for (_, columns), balance in zip(parts, balances)]

    def total(moments: list[Tensor]) -> Tensor:
        if len({moment.ndim for moment in moments}) > 1:
            moments = [torch.diag(moment) if moment.ndim == 1 else moment for moment in moments]
        return sum(moments[1:], moments[0])

    return total(rows), total(columns)


def _entries(name: str, moment: Tensor) -> dict[str, np.ndarray]:
    if moment.ndim == 1:
        return {f"{name}_scale": moment.sqrt().numpy()}
    return {f"{name}_gram": ((moment + moment.T) / 2).numpy()}


def _find_weights(
    model: nn.Module,
    names: Callable[[str], str | None],
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    min_side: int,
    max_gram: int,
) -> list[_Weight]:
    groups: dict[Tensor, list[tuple[str, nn.Module, Kind]]] = {}
    for path, module in model.named_modules():
        kind = kind_of(module)
        if kind is not None and module.weight.ndim == 2 and min(module.weight.shape) >= min_side:
            groups.setdefault(module.weight, []).append((f"{path}.weight" if path else "weight", module, kind))
    weights = []
    for weight, members in groups.items():
        name = next((found for path, _, _ in members if (found := names(path)) is not None), None)
        if name is None or not any(fnmatchcase(name, glob) for glob in include):
            continue
        if any(fnmatchcase(name, glob) for glob in exclude):
            continue
        weights.append(_Weight(name, [_Use(module, kind, weight.shape, max_gram) for _, module, kind in members]))
    return weights
