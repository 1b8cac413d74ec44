"""Compares several ways to train few numbers of a compressed model, on the same batches and for the same number of steps."""

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "python"), str(HERE.parent / "examples/minilm")]
from mpo_checkpoint import MPOMatrix, add_deep_lora, add_lora, from_pretrained  # noqa: E402
from mpo_checkpoint.huggingface import calibrate_language_model  # noqa: E402
from mpo_checkpoint.text_batches import TextBatches  # noqa: E402
from mpo_checkpoint.pieces import text_pieces  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

from distillation import WARM_UP, distillation_loss, distillation_target, shuffled_batches  # noqa: E402
from embeddings import embed, load, mean_cosine  # noqa: E402

SHARE = 0.03
"""At most this part of all parameters is trained."""


@dataclass
class Split:
    """A choice of the numbers of a checkpoint that are trained.

    Attributes
    ----------
    name
        the name in the table.
    checkpoint
        the folder of the converted model.
    kind
        ``inner``, ``auxiliary``, ``all``, ``lora`` or ``deep-lora``.
    rate
        the learning rate; for cores and vectors it is relative to the size of their elements, for adapters absolute.
    before, after
        the quality before and after the training.
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
        """How many numbers are trained, without vectors."""
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad and p.ndim > 1)

    def load(self, numbers: int, first_loss: Callable[[nn.Module], torch.Tensor], **options) -> None:
        """Loads the checkpoint and adds adapters, or freezes layers, so that at most ``numbers`` numbers (without vectors) are trained."""
        is_adapter = self.kind.endswith("lora")
        self.model = from_pretrained(self.checkpoint, "none" if is_adapter else self.kind, matrices=False, **options)
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
        """One step of the optimizer, with its learning rate times ``factor``."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_([p for group in self.optimizer.param_groups for p in group["params"]], 1.0)
        self.optimizer.step()
        self.losses.append(float(loss.detach()))


def limit(model: nn.Module, numbers: int, loss: Callable[[nn.Module], torch.Tensor]) -> None:
    """Freezes whole matrices until at most ``numbers`` numbers are trained.

    It first freezes the matrices with the smallest mean product of gradient and size of their elements, on the first batch.
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
    """The factor of the learning rate: a linear warm-up, then half a cosine down to zero."""
    progress = (step + 1) / steps
    if progress < WARM_UP:
        return progress / WARM_UP
    return (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP))) / 2


def train(splits, batches, steps, target, loss, log=None) -> None:
    """Trains all splits; in each step all have the same batch.

    Parameters
    ----------
    batches
        an iterator.
    target
        a function of a batch that gives the outputs to learn.
    loss
        a function of model, batch and target.
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


def measure_encoder(bench):
    """Compares ways to train few numbers of MiniLM, in one run."""
    options = bench.options
    total = sum(value.numel() for value in bench.embedder.original.values())
    vectors = sum(value.numel() for value in bench.embedder.original.values() if value.ndim < 2)
    numbers = int(SHARE * total) - vectors
    auto = bench.convert(0.5, ["--structure", "auto"], name="auto")
    chain = bench.convert(0.5, ["--structure", "chain"], name="chain")
    teacher = load(options.folder)
    held_out = list(TextBatches(options.folder, bench.held_out))
    reference = embed(teacher, held_out)
    first = next(shuffled_batches(options.folder, bench.training, 32))

    def target(batch):
        return distillation_target(teacher, batch)

    def loss(model, batch, expected):
        return distillation_loss(model, expected, batch, 1.0)

    before = {}

    def run(splits, steps):
        for split in splits:
            split.load(math.inf if split.kind == "all" else numbers, lambda model: loss(model, first, target(first)))
            if split.checkpoint not in before:  # all splits of a checkpoint compute the same before they are trained
                before[split.checkpoint] = mean_cosine(split.model, held_out, reference)
            split.before = before[split.checkpoint]
        train(splits, shuffled_batches(options.folder, bench.training, 32), steps, target, loss)
        for split in splits:
            split.after = mean_cosine(split.model, held_out, reference)
            yield split, (split.after - split.before) / (1 - split.before)

    lines, missed = [], []
    splits = [
        Split("inner cores", auto, "inner", 0.005),
        Split("all factors", auto, "all", 0.005),
        Split("auxiliary cores of chains of 5 sites", chain, "auxiliary", 0.005),
        Split("Deep LoRA", auto, "deep-lora", 0.005),
        Split("LoRA", auto, "lora", 0.001),
    ]
    alone = Split("inner cores", auto, "inner", 0.005)
    for count, compared in ((options.steps, splits), (options.long_steps, [alone])):
        for split, recovered in run(compared, count):
            lines.append(
                f"| {split.name} | {count} | {split.trained:,} ({split.trained / total:.1%}) | {split.before:.4f} | "
                f"{split.after:.4f} | {recovered:.0%} |"
            )
            print(lines[-1], flush=True)
            if split is alone and (recovered < 0.5 or split.trained + vectors > SHARE * total):
                missed.append(f"{split.name}: {recovered:.0%} of the lost cosine with {split.trained / total:.1%}")
    text = (
        f"**Few numbers to train**, MiniLM at ρ = 0.5, `--structure auto` (chains: `chain`): {options.steps} steps of 32 sentences with "
        "the loss of `tools/examples/minilm/finetune.py`, all in one run on the same batches, then the inner cores alone for longer. "
        f"Trained are the numbers named and the {vectors:,} of vectors; of cores and adapters so many that with the vectors they "
        f"are at most {SHARE:.0%} of the model's, except for all factors. Before and after are mean cosines, recovered is the part "
        "of the lost cosine."
    )
    head = ["| trained | steps | numbers | before | after | recovered |", "|---|---|---|---|---|---|"]
    return [text, "", *head, *lines, ""], missed


def measure_language(bench):
    """Compares ways to train few numbers of a language model, on the text of the statistics."""
    options = bench.options
    folder, steps, length = options.language_model, options.language_steps, 512
    if folder is None:
        return None, []
    samples = text_pieces(folder, options.manuals / "statistics.txt", length, 32)
    statistics = options.language_statistics or bench.work / "language.safetensors"
    if not options.language_statistics:
        calibrate_language_model(folder, samples, statistics)
    held_out = text_pieces(folder, options.manuals / "measuring.txt", length, 8)
    training = text_pieces(folder, options.manuals / "statistics.txt", length, steps)
    order = torch.randperm(steps, generator=torch.Generator().manual_seed(0))
    original = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    total = sum(parameter.numel() for parameter in original.parameters())
    vectors = sum(parameter.numel() for parameter in original.parameters() if parameter.ndim < 2)
    numbers = int(SHARE * total) - vectors
    checkpoints = {}
    for structure in ("auto", "chain"):
        checkpoints[structure] = bench.work / f"language-{structure}.mpo"
        subprocess.run(
            [options.mpo, "convert", folder, "-o", checkpoints[structure], "--matrix-ratio", "0.6", "--structure", structure,
             "--include", "model.layers.*.weight", "--calibration", statistics],
            stdout=subprocess.DEVNULL, check=True,
        )  # fmt: skip

    def nll(model, ids, is_half=True):
        with torch.autocast("cpu", torch.bfloat16, enabled=is_half):
            logits = model(input_ids=ids[None], use_cache=False).logits[0]
        return torch.nn.functional.cross_entropy(logits[:-1].float(), ids[1:])

    @torch.no_grad()
    def perplexity(model):
        return math.exp(sum(float(nll(model, ids, False)) for ids in held_out) / len(held_out))

    lines, falls, before = [], {}, {}
    splits = [
        Split("inner cores", checkpoints["auto"], "inner", 0.003),
        Split("auxiliary cores of chains of 5 sites", checkpoints["chain"], "auxiliary", 0.003),
        Split("LoRA", checkpoints["auto"], "lora", 0.002),
        Split("Deep LoRA", checkpoints["auto"], "deep-lora", 0.01),
    ]
    for split in splits:  # one after the other, so that only one is in memory
        split.load(numbers, lambda model: nll(model, training[order[0]]), task="causal-lm", keeps_matrix=False)
        if split.checkpoint not in before:
            before[split.checkpoint] = perplexity(split.model)
        split.before = before[split.checkpoint]
        train([split], iter(training[order]), steps, lambda ids: None, lambda model, ids, _: nll(model, ids))
        split.after = perplexity(split.model)
        falls[split.name] = 1 - split.after / split.before
        lines.append(
            f"| {split.name} | {split.trained:,} ({split.trained / total:.1%}) | {split.before:.1f} | {split.after:.1f} | "
            f"{-falls[split.name]:.0%} |"
        )
        print(lines[-1], flush=True)
        split.model = split.optimizer = None
    text = (
        f"**Few numbers of a language model to train**: SmolLM2-135M, its 210 matrices at ρ = 0.6, {steps} steps of one piece of "
        f"{length} tokens of the text of the statistics, the loss of its next tokens, products in bfloat16; perplexity on 8 pieces "
        f"of the other manuals, where the original has {perplexity(original):.1f}. At most {SHARE:.0%} of all numbers are trained, "
        f"{vectors:,} of vectors among them; of cores, those of the matrices where a number has the largest gradient."
    )
    head = ["| trained | numbers | before | after | change |", "|---|---|---|---|---|"]
    missed = [] if max(falls.values()) >= 0.15 else [f"no split lowers the perplexity by 15 %: {falls}"]
    return [text, "", *head, *lines, ""], missed
