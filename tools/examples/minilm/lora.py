"""Low-rank adapters (LoRA, arXiv 2106.09685) beside the layers of a converted model: what fine-tuning is compared with."""

import torch
from mpo_checkpoint import MPOLinear
from torch import nn


class Adapted(nn.Module):
    """``layer(x) + x Aᵀ Bᵀ``, with B zero at first."""

    def __init__(self, layer, rank):
        super().__init__()
        self.layer = layer
        self.down = nn.Parameter(torch.randn(rank, layer.in_features) / layer.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(layer.out_features, rank))

    def forward(self, x):
        return self.layer(x) + x @ self.down.T @ self.up.T


def add_lora(model):
    """Adapters of one rank beside all layers made of cores, of as many parameters as the auxiliary cores; says how many."""
    layers = {path: module for path, module in model.named_modules() if isinstance(module, MPOLinear)}
    auxiliary = sum(core.numel() for layer in layers.values() for core in layer.weight.auxiliary_cores)
    rank = round(auxiliary / sum(layer.in_features + layer.out_features for layer in layers.values()))
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.ndim < 2)
    for path, layer in layers.items():
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, Adapted(layer, rank))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return f"adapters of rank {rank}: {trained:,} parameters trained, vectors among them"
