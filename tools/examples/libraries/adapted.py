"""Compares a compressed model, without and with the adapter of 'mpo adapt', with the dense one: cosines of mean hidden states.

usage: python adapted.py MODEL_FOLDER MODEL.mpo ADAPTER
"""

import sys

import mpo_checkpoint  # noqa: F401
import torch
from peft import PeftModel
from transformers import AutoModel, AutoTokenizer

if len(sys.argv) != 4:
    sys.exit(__doc__)
dense, folder, adapter = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(dense)
texts = ["Returns the number of items in the list.", "Opens a file for reading.", "Deletes all the rows of a table."]


def vectors(model):
    with torch.no_grad():
        return torch.stack([model(**tokenizer(t, return_tensors="pt")).last_hidden_state.mean((0, 1)) for t in texts])


expected = vectors(AutoModel.from_pretrained(dense))
compressed = AutoModel.from_pretrained(folder)
print("without", torch.cosine_similarity(vectors(compressed), expected))
print("with   ", torch.cosine_similarity(vectors(PeftModel.from_pretrained(compressed, adapter)), expected))
