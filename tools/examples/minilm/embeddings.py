"""Functions that the scripts here share: they load a model, dense or made of cores, and compute its sentence embeddings."""

import sys
from pathlib import Path

import torch
from transformers import AutoModel
from transformers.utils import logging

sys.path.append(str(Path(__file__).resolve().parents[2] / "python"))  # where mpo_checkpoint is not installed
from mpo_checkpoint import from_pretrained, sentence_embedding  # noqa: E402


def load(folder, trainable="none", **options):
    """The model of an MPO checkpoint, with options of `from_pretrained`, or of a dense model folder; in evaluation mode."""
    logging.disable_progress_bar()
    if (Path(folder) / "manifest.json").is_file():
        return from_pretrained(folder, trainable, **options).eval()
    if not (Path(folder) / "config.json").is_file():
        raise ValueError(f"{folder}: is neither an MPO checkpoint nor a model folder; check the path")
    return AutoModel.from_pretrained(folder, local_files_only=True).eval().requires_grad_(False)


def require_match(model, original, folder):
    """Raises ValueError if the model of a folder has embeddings of another size than the original."""
    size, expected = model.config.hidden_size, original.config.hidden_size
    if size != expected:
        raise ValueError(f"{folder}: its embeddings have {size} features, but the original's have {expected}; give a checkpoint of this model")


@torch.no_grad()
def embed(model, batches):
    """The embeddings ``[sentences, features]``, each of length 1."""
    return torch.cat([sentence_embedding(model(**b).last_hidden_state, b["attention_mask"]) for b in batches])


def mean_cosine(model, batches, reference):
    """The mean cosine between a model's embeddings and the embeddings ``reference``."""
    return float((embed(model, batches) * reference).sum(-1).mean())
