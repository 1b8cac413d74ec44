#!/usr/bin/env python3
"""The mean cosine between the sentence embeddings of a converted and the original MiniLM, on a text file.

usage: evaluate.py ORIGINAL_FOLDER TEXT [MPO_CHECKPOINT]

Without the last argument the checkpoint is that of the environment variable MPO_CHECKPOINT, so that the script serves as
the --evaluate command of 'mpo squeeze'. A dense model folder is taken too. Prints one number, its last line.
"""

import os
import sys

from embeddings import embed, load, mean_cosine
from mpo_checkpoint.text_batches import TextBatches, read_samples

if not 3 <= len(sys.argv) <= 4:
    sys.exit(__doc__)
original, text = sys.argv[1:3]
batches = list(TextBatches(original, read_samples(text)))
checkpoint = sys.argv[3] if len(sys.argv) == 4 else os.environ["MPO_CHECKPOINT"]
print(mean_cosine(load(checkpoint), batches, embed(load(original), batches)))
