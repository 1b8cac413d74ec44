#!/usr/bin/env python3
"""Prints the mean cosine between the sentence embeddings of a converted MiniLM and the original, on the lines of a text file.

usage: evaluate.py ORIGINAL_FOLDER TEXT [MPO_CHECKPOINT]

Without MPO_CHECKPOINT the environment variable of this name gives the checkpoint, so that 'mpo squeeze' can run the script as
its --evaluate command. A dense model folder is accepted too. The last line of output is the number.
"""

import os
import sys

from embeddings import embed, load, mean_cosine, require_match
from mpo_checkpoint.text_batches import TextBatches, read_samples

if not 3 <= len(sys.argv) <= 4:
    sys.exit(__doc__)
original, text = sys.argv[1:3]
checkpoint = sys.argv[3] if len(sys.argv) == 4 else os.environ.get("MPO_CHECKPOINT")
if not checkpoint:
    sys.exit("evaluate.py: there is no checkpoint; give one as the last argument or set MPO_CHECKPOINT")
try:
    batches = list(TextBatches(original, read_samples(text)))
    model, dense = load(checkpoint), load(original)
    require_match(model, dense, checkpoint)
    print(mean_cosine(model, batches, embed(dense, batches)))
except (OSError, ValueError) as error:
    sys.exit(f"evaluate.py: {error}")
