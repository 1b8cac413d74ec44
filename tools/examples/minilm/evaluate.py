#!/usr/bin/env python3
"""The mean cosine between the sentence embeddings of a converted and the original MiniLM, on a text file.

usage: evaluate.py ORIGINAL_FOLDER TEXT [MPO_CHECKPOINT]

Without the last argument the checkpoint is that of the environment variable MPO_CHECKPOINT, so that the script serves as
the --evaluate command of 'mpo squeeze'. A dense model folder is taken too. Prints one number, its last line.
"""

import os
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "python"))
from mpo_checkpoint import load_dense  # noqa: E402
from mpo_checkpoint.huggingface import sentence_embedding  # noqa: E402


@torch.no_grad()
def embeddings(model, tokenizer, sentences):
    parts = []
    for start in range(0, len(sentences), 32):
        batch = tokenizer(sentences[start : start + 32], return_tensors="pt", padding=True, truncation=True)
        parts.append(sentence_embedding(model(**batch).last_hidden_state, batch["attention_mask"]))
    return torch.cat(parts)


def main():
    if not 3 <= len(sys.argv) <= 4:
        sys.exit(__doc__)
    folder, text = Path(sys.argv[1]), Path(sys.argv[2])
    checkpoint = Path(sys.argv[3] if len(sys.argv) == 4 else os.environ["MPO_CHECKPOINT"])
    sentences = sorted((s for s in text.read_text("utf-8").splitlines() if s.strip()), key=len)
    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    expected = embeddings(model, tokenizer, sentences)
    if (checkpoint / "manifest.json").exists():
        tensors = load_dense(checkpoint)
    else:
        tensors = load_file(checkpoint if checkpoint.is_file() else checkpoint / "model.safetensors")
    state = {name: torch.from_numpy(np.array(tensors.get(name, value))) for name, value in model.state_dict().items()}
    model.load_state_dict(state)
    print(float((embeddings(model, tokenizer, sentences) * expected).sum(-1).mean()))


main()
