"""Compares the sentence embeddings of a converted model and of the dense one, in sentence-transformers.

usage: python sentences.py MODEL_FOLDER MODEL.mpo
"""

import sys

import mpo_checkpoint  # noqa: F401
from sentence_transformers import SentenceTransformer

if len(sys.argv) != 3:
    sys.exit(__doc__)
dense, folder = map(SentenceTransformer, sys.argv[1:])
texts = ["Returns the number of items in the list.", "Opens a file for reading.", "Deletes all the rows of a table."]
for text, a, b in zip(texts, dense.encode(texts), folder.encode(texts)):
    print(f"{float(a @ b):.3f}  {text}")
