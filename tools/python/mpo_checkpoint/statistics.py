"""Second moments of the inputs and the output gradients of a network's layers, for any ``torch.nn.Module``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Iterable

import numpy as np
import torch
from torch import Tensor, nn


@dataclass
class Statistics:
    """What a statistics file holds.

    ``tensors`` are named ``<matrix>.<side>_<kind>``. The sides are those of the matrix as it is stored: ``input`` its
    columns, ``output`` its rows; the kinds ``gram`` (a second moment) or ``scale`` (what multiplies the error).
    """

    tensors: dict[str, np.ndarray]
    samples: int
    tokens: int
    description: str

    @property
    def matrices(self) -> list[str]:
        return sorted({name.rsplit(".", 1)[0] for name in self.tensors})

    def renamed(self, name: Callable[[str], str | None]) -> Statistics:
        """The same with each matrix under another name; those that get None are left out."""
        tensors = {}
        for key, value in self.tensors.items():
            matrix, kind = key.rsplit(".", 1)
            if (new := name(matrix)) is not None:
                tensors[f"{new}.{kind}"] = value
        return Statistics(tensors, self.samples, self.tokens, self.description)

    def save(self, path: Path | str) -> None:
        """Writes the file, float32."""
        from safetensors.numpy import save_file

        metadata = {
            "format": "mpo-statistics",
            "version": "1",
            "samples": str(self.samples),
            "tokens": str(self.tokens),
            "description": self.description,
        }
        save_file({name: np.ascontiguousarray(value, np.float32) for name, value in self.tensors.items()}, path, metadata)


@dataclass
class _Layer:
    """Sums over positions, in double precision."""

    input_sum: Tensor | None = None
    counts: Tensor | None = None
    positions: int = 0
    gradient_sum: Tensor | None = None
    gradient_positions: int = 0
    mask: Tensor | None = field(default=None, repr=False)

    def add_input(self, x: Tensor) -> None:
        x = x.double()
        self.input_sum = x.T @ x if self.input_sum is None else self.input_sum.addmm_(x.T, x)
        self.positions += len(x)

    def add_gradient(self, g: Tensor) -> None:
        g = g.double()
        self.gradient_sum = g.T @ g if self.gradient_sum is None else self.gradient_sum.addmm_(g.T, g)
        self.gradient_positions += len(g)


def _is_conv1d(module: nn.Module) -> bool:
    """GPT-2's linear layer, whose weight is ``[in, out]``."""
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf")


def collect_statistics(
    model: nn.Module,
    batches: Iterable[tuple[object, Tensor | None, int]],
    output: Callable[[object], Tensor],
    *,
    projections: int = 4,
    seed: int = 0,
    loss: Callable[[Tensor, object], Tensor] | None = None,
    description: str = "",
) -> Statistics:
    """Runs batches through a model and collects both second moments of every linear and embedding layer.

    Args:
        model: any module; it is put into evaluation mode.
        batches: of ``(batch, mask, samples)``; the mask ``[batch, positions]`` is 1 where there is no padding, or None.
        output: computes the model's output for a batch, ``[samples, …]``, with gradients.
        projections: how many random vectors the output is multiplied with, a backward pass each. Their gradients have
            the second moment ``JᵀJ`` of the output's Jacobian, so no labels are needed.
        loss: of the output and the batch; its gradient is used instead of that of random projections.
    """
    model.eval()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    layers: dict[str, _Layer] = {}
    modules = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, nn.Embedding)) or _is_conv1d(module)
    }
    mask: Tensor | None = None

    def rows(value: Tensor) -> Tensor:
        """``[positions, features]`` without padding."""
        if mask is not None and value.ndim >= 3 and value.shape[:2] == mask.shape:
            return value[mask.bool()]
        return value.reshape(-1, value.shape[-1])

    def forward_hook(name: str):
        def hook(module: nn.Module, inputs: tuple, result: Tensor) -> None:
            layer = layers[name]
            value = inputs[0].detach()
            if isinstance(module, nn.Embedding):
                if mask is not None and value.shape == mask.shape:
                    value = value[mask.bool()]
                counts = torch.bincount(value.reshape(-1), minlength=module.num_embeddings)
                layer.counts = counts if layer.counts is None else layer.counts + counts
            else:
                layer.add_input(rows(value))

        return hook

    def backward_hook(name: str):
        def hook(module: nn.Module, _: tuple, gradients: tuple) -> None:
            if gradients[0] is not None:
                layers[name].add_gradient(rows(gradients[0].detach()))

        return hook

    handles = []
    for name, module in modules.items():
        layers[name] = _Layer()
        handles.append(module.register_forward_hook(forward_hook(name)))
        handles.append(module.register_full_backward_hook(backward_hook(name)))
    generator = torch.Generator().manual_seed(seed)
    samples = tokens = 0
    try:
        for batch, mask, count in batches:
            samples += count
            tokens += int(mask.sum()) if mask is not None else count
            result = output(batch)
            passes = 1 if loss else projections
            for index in range(passes):
                value = loss(result, batch) if loss else (torch.randn(result.shape, generator=generator) * result).sum()
                model.zero_grad(set_to_none=True)
                value.backward(retain_graph=index + 1 < passes)
    finally:
        for handle in handles:
            handle.remove()

    tensors: dict[str, np.ndarray] = {}
    for name, module in modules.items():
        layer = layers[name]
        gradient = None
        if layer.gradient_sum is not None and float(layer.gradient_sum.diagonal().sum()) > 0:
            gradient = (layer.gradient_sum / layer.gradient_positions).numpy()
        weight = f"{name}.weight" if name else "weight"
        if isinstance(module, nn.Embedding):
            # A row is looked up as often as its token occurs; one more for what the samples do not have.
            if layer.counts is None or gradient is None:
                continue
            frequency = (layer.counts + 1).double() / float(layer.counts.sum() + len(layer.counts))
            tensors[f"{weight}.output_scale"] = frequency.sqrt().numpy()
            tensors[f"{weight}.input_gram"] = gradient
        elif layer.input_sum is not None and gradient is not None:
            inputs = (layer.input_sum / layer.positions).numpy()
            # As the weight is stored: [out, in], or [in, out] for Conv1D.
            columns, lines = (gradient, inputs) if _is_conv1d(module) else (inputs, gradient)
            tensors[f"{weight}.input_gram"] = columns
            tensors[f"{weight}.output_gram"] = lines
    return Statistics(tensors, samples, tokens, description)
