"""Several ways to train a few numbers of a compressed model: on the same batches, for the same number of steps."""

import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

sys.path.append(str(Path(__file__).resolve().parents[1] / "python"))
from mpo_checkpoint import MPOMatrix, add_deep_lora, add_lora, from_pretrained  # noqa: E402

WARM_UP = 0.05


@dataclass
class Split:
    """Which numbers of which checkpoint are trained.

    Attributes:
        name: for the table.
        checkpoint: the folder of the converted model.
        kind: ``inner``, ``auxiliary``, ``all``, ``lora`` or ``deep-lora``.
        rate: the learning rate; of cores relative to the size of their elements, of adapters as it is.
    """

    name: str
    checkpoint: Path
    kind: str
    rate: float
    model: nn.Module = None
    optimizer: torch.optim.Optimizer = None
    before: float = math.nan
    after: float = math.nan
    losses: list[float] = field(default_factory=list)

    @property
    def trained(self) -> int:
        """Numbers that are trained, vectors not counted."""
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad and p.ndim > 1)

    def load(self, numbers: int, first_loss: Callable[[nn.Module], torch.Tensor], **options) -> None:
        """Loads the checkpoint; adapters, or the cores of as many layers as fit, have at most ``numbers`` numbers."""
        is_adapter = self.kind.endswith("lora")
        self.model = from_pretrained(self.checkpoint, "none" if is_adapter else self.kind, **options)
        for parameter in self.model.parameters():
            if parameter.ndim < 2:
                parameter.requires_grad_(True)
        if is_adapter:
            shapes = [m.matrix_shape for m in self.model.modules() if isinstance(m, MPOMatrix)]
            if self.kind == "lora":
                adapters = add_lora(self.model, numbers // sum(map(sum, shapes)))
            else:
                adapters = add_deep_lora(self.model, math.isqrt(numbers // (3 * len(shapes))), first_loss)
            cores = {core for adapter in adapters.values() for core in adapter.cores}
        else:
            cores = set()
            limit(self.model, numbers, first_loss)
        groups = []
        for parameter in (p for p in self.model.parameters() if p.requires_grad):
            size = 1.0 if parameter in cores else max(float(parameter.detach().square().mean().sqrt()), 0.01)
            groups.append({"params": [parameter], "peak": self.rate * size})
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), eps=1e-12, weight_decay=0.0)

    def step(self, loss: torch.Tensor, factor: float) -> None:
        """One step of the optimizer, at a part of its rate."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_([p for group in self.optimizer.param_groups for p in group["params"]], 1.0)
        self.optimizer.step()
        self.losses.append(float(loss.detach()))


def limit(model: nn.Module, numbers: int, loss: Callable[[nn.Module], torch.Tensor]) -> None:
    """Freezes whole matrices until no more than so many numbers are trained.

    Those go first whose numbers matter least: the mean product of gradient and size of their elements, on the first batch.
    """
    weights = {id(m): m for m in model.modules() if isinstance(m, MPOMatrix)}.values()
    cores = {w: [p for p in w.parameters() if p.requires_grad] for w in weights}
    total = sum(p.numel() for own in cores.values() for p in own)
    if total <= numbers:
        return
    trained = [p for own in cores.values() for p in own]
    gradients = dict(zip(trained, torch.autograd.grad(loss(model), trained)))

    def value(own):
        gain = sum(float(gradients[p].abs().sum() * p.detach().square().mean().sqrt()) for p in own)
        return gain / sum(p.numel() for p in own)

    for weight, own in sorted(((w, own) for w, own in cores.items() if own), key=lambda item: value(item[1])):
        if total <= numbers:
            return
        weight.requires_grad_(False)
        total -= sum(p.numel() for p in own)


def factor(step: int, steps: int) -> float:
    """Of the learning rate: a linear warm-up, then half a cosine down to zero."""
    progress = (step + 1) / steps
    if progress < WARM_UP:
        return progress / WARM_UP
    return (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP))) / 2


def train(splits, batches, steps, target, loss, log=None) -> None:
    """Trains all splits, each step of all on the same batch.

    Args:
        batches: an iterator.
        target: of a batch: what all splits are compared with.
        loss: of model, batch and target.
    """
    start = time.process_time()
    for step in range(steps):
        batch = next(batches)
        aim = target(batch)
        for split in splits:
            split.step(loss(split.model, batch, aim), factor(step, steps))
        if (step + 1) % 10 == 0:
            means = {split.name: round(sum(split.losses[-10:]) / len(split.losses[-10:]), 4) for split in splits}
            print(f"step {step + 1} of {steps}, {time.process_time() - start:.0f} s of processor time: {json.dumps(means)}",
                  file=log or sys.stderr, flush=True)  # fmt: skip
