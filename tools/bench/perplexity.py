"""Measures the perplexity of a language model with some of its weights replaced, for example by those that mpo restores."""

import math
import subprocess

import torch
from transformers import AutoModelForCausalLM

HOPELESS = 20
"""If the perplexity after a quarter of the pieces is more than this times the original's, the other pieces are not measured."""


class Perplexity:
    """A model whose perplexity can be measured with some of its weights replaced.

    Parameters
    ----------
    folder
        the model folder.
    pieces
        token ids ``[pieces, positions]``.
    """

    def __init__(self, folder, pieces):
        self.model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval()
        self.pieces = pieces
        self.parameters = dict(self.model.named_parameters())
        self.own = {}
        self.original = None

    def is_hopeless(self, perplexity):
        return self.original is not None and perplexity > HOPELESS * self.original

    @torch.no_grad()
    def of(self, tensors):
        """The perplexity with these named tensors in place of the model's own, and the number of pieces that were measured."""
        for name, value in tensors:
            self.own.setdefault(name, self.parameters[name].data)
            self.parameters[name].data = value
        losses = []
        for ids in self.pieces:
            if len(losses) == len(self.pieces) // 4 and self.is_hopeless(math.exp(sum(losses) / len(losses))):
                break
            logits = self.model(input_ids=ids[None, :], use_cache=False).logits[0]
            losses.append(torch.nn.functional.cross_entropy(logits[:-1], ids[1:]).item())
        for name, value in self.own.items():
            self.parameters[name].data = value
        return math.exp(sum(losses) / len(losses)), len(losses)


def converted(mpo, folder, work, *arguments):
    """Converts a model folder with mpo, restores it in the folder ``work``, and returns the path of the restored file."""
    output, restored = work / "out.mpo", work / "out.safetensors"
    command = [mpo, "convert", folder, "-o", output, "--force", "--structure", "auto", *arguments]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    subprocess.run([mpo, "restore", output, "-o", restored, "--force"], stdout=subprocess.DEVNULL, check=True)
    return restored
