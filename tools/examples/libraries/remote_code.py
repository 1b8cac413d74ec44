"""Loads a folder that ``mpo convert --remote-code`` wrote. The package mpo_checkpoint need not be installed.

usage: python remote_code.py MINILM.mpo
"""

import importlib.util
import sys

import torch
from transformers import AutoModel, AutoTokenizer

if len(sys.argv) != 2:
    sys.exit(__doc__)
print("mpo_checkpoint is installed:", importlib.util.find_spec("mpo_checkpoint") is not None)
model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True).eval()
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
with torch.no_grad():
    states = model(**tokenizer("A small tensor.", return_tensors="pt")).last_hidden_state
print(type(model).__name__, "with", type(model.encoder.layer[0].output.dense).__name__, list(states.shape))
