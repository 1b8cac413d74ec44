"""Trains a converted model to compute the outputs of the original: self-distillation, without labels."""

import math
import random
import time

import torch
from mpo_checkpoint import adapters_of, sentence_embedding
from mpo_checkpoint.text_batches import TextBatches

WARM_UP = 0.05
"""The part of the training in which the learning rate rises."""


def shuffled_batches(folder, sentences, batch_size, seed=0):
    """Endless batches in random order; the sentences of a batch have similar lengths."""
    sentences, generator = list(sentences), random.Random(seed)
    encode = TextBatches(folder, []).encode
    while True:
        generator.shuffle(sentences)
        pool = batch_size * 64
        groups = [sorted(sentences[start : start + pool], key=len) for start in range(0, len(sentences), pool)]
        batches = [group[start : start + batch_size] for group in groups for start in range(0, len(group), batch_size)]
        generator.shuffle(batches)
        yield from map(encode, batches)


@torch.no_grad()
def distillation_target(teacher, batch):
    """The outputs of the original model for a batch."""
    return teacher(**batch, output_hidden_states=True)


def distillation_loss(student, expected, batch, hidden):
    """One minus the cosine of the embeddings, plus ``hidden`` times the mean relative squared error of the hidden states."""
    found = student(**batch, output_hidden_states=True)
    mask = batch["attention_mask"]
    embeddings = [sentence_embedding(output.last_hidden_state, mask) for output in (found, expected)]
    loss = 1 - (embeddings[0] * embeddings[1]).sum(-1).mean()
    errors = [
        ((a - b).square() * mask[..., None]).sum() / (b.square() * mask[..., None]).sum()
        for a, b in zip(found.hidden_states[1:], expected.hidden_states[1:])
    ]
    return loss + hidden * sum(errors) / len(errors)


def optimizer_of(model, rate):
    """AdamW over the parameters that require gradients. The learning rate of each is ``rate`` times the size of its elements.

    The cores of Deep LoRA are small at first; for them the size is taken to be 0.3.
    """
    deep = {core for adapter in adapters_of(model).values() if len(adapter.cores) > 2 for core in adapter.cores}

    def size(tensor):
        if tensor in deep:
            return 0.3
        size = float(tensor.detach().square().mean().sqrt())
        return max(size, 0.01) if size else 0.05

    groups = [{"params": [p], "peak": rate * size(p)} for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.0)


class Schedule:
    """How much of a training is done, by steps or by computing time (which, unlike the time by the clock, other programs do not change)."""

    def __init__(self, steps=None, minutes=None):
        self.steps, self.minutes, self.step, self.start = steps, minutes, 0, time.process_time()

    @property
    def seconds(self):
        """The computing time of each thread."""
        return (time.process_time() - self.start) / torch.get_num_threads()

    @property
    def progress(self):
        return self.step / self.steps if self.steps else self.seconds / (60 * self.minutes)

    @property
    def factor(self):
        """The factor of the learning rate: a linear warm-up, then half a cosine down to zero."""
        progress = self.progress
        if progress < WARM_UP:
            return progress / WARM_UP
        return (1 + math.cos(math.pi * min(1, (progress - WARM_UP) / (1 - WARM_UP)))) / 2


def distill(student, teacher, batches, schedule, rate, hidden, report=lambda step, loss: None, stand_ins=None):
    """Trains until the schedule ends; if ``stand_ins``, a `MixedRank`, is given, with mixed rank."""
    optimizer = optimizer_of(student, rate)
    while schedule.progress < 1:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * schedule.factor
        batch = next(batches)
        if stand_ins is not None:
            stand_ins.draw(schedule.progress)
        # The weight of the hidden states falls to zero, because only the embeddings matter at the end.
        weight = hidden * (1 - min(1, schedule.progress))
        loss = distillation_loss(student, distillation_target(teacher, batch), batch, weight)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in student.parameters() if p.grad is not None], 1.0)
        optimizer.step()
        schedule.step += 1
        report(schedule.step, float(loss.detach()))
