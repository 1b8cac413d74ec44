"""First-order pruning of a sentence-embedding model, the first stage of LPAF (arXiv 2306.14152), which factorises sparse matrices."""

import torch
from mpo_checkpoint.outputs import sentence_embedding
from mpo_checkpoint.text_batches import TextBatches
from transformers import AutoModel


def first_order_scores(folder, samples, names, projections=12, seed=0):
    """``|w| √E[(∂L/∂w)²]`` of every element, by name of the tensor: how much L changes, to first order, if w becomes zero.

    L is the inner product of the sentence embedding with standard normal numbers, drawn anew for each sample and each of the
    ``projections``.
    """
    model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    weights = {name: weight for name, weight in model.named_parameters() if name in names}
    squares = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    generator = torch.Generator().manual_seed(seed)
    for batch in TextBatches(folder, samples, batch_size=32):
        output = sentence_embedding(model(**batch).last_hidden_state, batch["attention_mask"])
        for left in reversed(range(projections)):
            value = (torch.randn(output.shape, generator=generator) * output).sum()
            # The gradients of different samples have independent signs, so the expected square of their sum is the sum of squares.
            gradients = torch.autograd.grad(value, list(weights.values()), retain_graph=left > 0)
            for name, gradient in zip(weights, gradients):
                squares[name] += gradient.square()
    return {name: (weight.detach().square() * squares[name]).sqrt() for name, weight in weights.items()}


def pruned(weights, scores, kept):
    """The weights with all elements set to zero except the part ``kept`` with the highest scores over all matrices."""
    everything = torch.cat([scores[name].flatten() for name in scores])
    threshold = everything.kthvalue(max(1, round((1 - kept) * len(everything)))).values
    return {name: weight * (scores[name] > threshold) for name, weight in weights.items()}
