"""Collects statistics of a model's layers from batches that run through it, see `moments`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .layers import Kind, kind_of
from .moments import Scope, Use
from .statistics import Statistics

Forward = Callable[[nn.Module, Any], Tensor]


def attention_mask(batch: Any) -> Tensor | None:
    """The mask ``[samples, positions]`` that a tokenizer gives with its ids, 0 for padding; None if there is none."""
    return batch.get("attention_mask") if isinstance(batch, Mapping) or hasattr(batch, "get") else None


def collect_statistics(
    model: nn.Module,
    batches: Iterable[Any],
    forward: Forward,
    *,
    mask: Callable[[Any], Tensor | None] = attention_mask,
    loss: Callable[[Tensor, Any], Tensor] | None = None,
    losses: Callable[[Tensor, Any], Iterable[Tensor]] | None = None,
    passes: int | None = None,
    is_separable: bool = False,
    has_element_weights: bool = False,
    projections: int = 12,
    seed: int = 0,
    names: Callable[[str], str | None] = lambda name: name,
    include: Iterable[str] = ("*",),
    exclude: Iterable[str] = (),
    min_side: int = 64,
    max_gram: int = 8192,
    description: str = "",
) -> Statistics:
    """Runs batches through a model and collects the second moments of both sides of its linear and embedding layers.

    Afterwards the model is as before: its mode, its parameters, and which of them require gradients.

    Parameters
    ----------
    model
        any module. Only layers of a known class (``Linear``, ``Embedding``, GPT-2's ``Conv1D``) that are called count;
        code that reads a layer's weight directly is not observed.
    batches
        what ``forward`` takes.
    forward
        a function of model and batch that gives the output whose change matters, ``[samples, …]``, differentiable.
    mask
        a function of a batch that gives ``[samples, positions]``, 0 for padding, or None if there is no padding.
    loss
        a function of output and batch that gives the loss of each sample, ``[samples]``, or their sum (not their mean). Its
        gradients are used instead of those of random projections.
    losses
        instead of ``loss``: a function of output and batch that gives ``passes`` such losses, one after the other.
    passes
        the number of losses that ``losses`` gives.
    is_separable
        True: the sides are the plain second moments ``mean x xᵀ`` and ``Σ g gᵀ`` of single positions, neither weighted by
        the other. This is better for language models, see `streaming`.
    has_element_weights
        True: collects the squared gradients of all elements instead of the two sides, see `element_weights`.
    projections
        the number of random projections of each output; each takes a backward pass.
    seed
        the seed of the projections.
    names
        a function of a parameter's name in the model that gives the tensor's name in the checkpoint, or None to leave it out.
    include, exclude
        globs of names in the checkpoint; ``exclude`` takes precedence.
    min_side
        matrices with a smaller side are left out; a conversion leaves them dense.
    max_gram
        a larger side gets a scale instead of a Gram matrix.
    description
        text for the file's metadata.

    Returns
    -------
    Statistics
        the statistics of all layers that the output depends on.

    Raises
    ------
    ValueError
        if no matrix is selected, if an argument is invalid, or if the output depends on no selected layer.
    """
    kind_of_use = Use
    if has_element_weights:
        from .element_weights import ElementUse as kind_of_use
    weights = _find_weights(model, names, tuple(include), tuple(exclude), min_side, max_gram, kind_of_use)
    if not weights:
        raise ValueError("no matrix of the model is selected; see include, exclude and min_side")
    if (losses is None) != (passes is None):
        raise ValueError("losses and passes must be given together")
    passes = passes if losses else 1 if loss else projections
    if passes < 1:
        raise ValueError("projections must be at least 1")
    samples = tokens = 0
    scope = Scope()
    generator = torch.Generator().manual_seed(seed)
    handles = [
        use.module.register_forward_hook(use.hook(scope, is_separable), with_kwargs=True) for weight in weights for use in weight.uses
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
                    raise ValueError("the output depends on none of the selected layers; see include, exclude and forward")
                samples += result.shape[0]
                tokens += int(scope.mask.sum()) if scope.mask is not None else result.shape[0]
                several = iter(losses(result, batch)) if losses else None
                for index in range(passes):
                    if several:
                        value = next(several)
                    else:
                        value = loss(result, batch) if loss else _projection(result, scope.mask, generator)
                    value.sum().backward(retain_graph=index + 1 < passes)
                scope.finish()
    finally:
        for handle in handles:
            handle.remove()
        for parameter in learning:
            parameter.requires_grad_(True)
        for module, mode in training.items():
            module.training = mode

    statistics = Statistics({}, samples, tokens, description, input_rows=[])
    for weight in weights:
        tensors = weight.tensors(samples * passes)
        statistics.tensors.update(tensors)
        if not tensors:
            statistics.skipped.append(weight.name)
        elif weight.reads_rows:
            statistics.input_rows.append(weight.name)
    return statistics


def _projection(result: Tensor, mask: Tensor | None, generator: torch.Generator) -> Tensor:
    """``r·o`` for a standard normal ``r``, without padding positions."""
    direction = torch.randn(result.shape, generator=generator).to(result)
    if mask is not None and result.ndim > 2 and result.shape[:2] == mask.shape:
        direction = direction * mask.reshape(*mask.shape, *(1,) * (result.ndim - 2)).to(result)
    return direction * result


class _Weight:
    """A matrix and all modules that use it; there are several if weights are tied."""

    def __init__(self, name: str, uses: list[Use]):
        self.name, self.uses = name, uses

    @property
    def reads_rows(self) -> bool:
        """Whether the rows are the inputs, which the first use decides."""
        return self.uses[0].kind is not Kind.LINEAR

    def tensors(self, gradients: int) -> dict[str, np.ndarray]:
        return type(self.uses[0]).tensors(self.name, self.uses, gradients)


def _find_weights(
    model: nn.Module,
    names: Callable[[str], str | None],
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    min_side: int,
    max_gram: int,
    kind_of_use: type[Use],
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
        weights.append(_Weight(name, [kind_of_use(module, kind, weight.shape, max_gram) for _, module, kind in members]))
    return weights
