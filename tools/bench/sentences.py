#!/usr/bin/env python3
"""Prints English sentences for measurements, from the docstrings of the installed Python packages, except mpo_checkpoint.

usage: sentences.py COUNT [SKIP]      (prints COUNT sentences, one in each line, after the first SKIP)

The order depends only on the installed files. So different ranges (for statistics, for training, for measuring) are disjoint.
"""

import random
import re
import sys
import sysconfig
from pathlib import Path

DOCSTRING = re.compile(r'"""(.*?)"""', re.S)
SENTENCE = re.compile(r"[A-Z][a-z]+ [a-zA-Z ,'()-]+\.")


def sentences(count, skip=0, files=6000):
    """Distinct sentences of 40 to 160 characters."""
    folders = sysconfig.get_paths()
    found = set()
    for folder in sorted({folders["stdlib"], folders["purelib"]}):
        # Without this project's own package, so that its wording does not change what is measured.
        paths = [path for path in sorted(Path(folder).rglob("*.py")) if "mpo_checkpoint" not in path.parts]
        for path in paths[:files]:
            for text in DOCSTRING.findall(path.read_text("utf-8", "ignore")):
                for sentence in re.split(r"(?<=[.])\s+", re.sub(r"\s+", " ", text.strip())):
                    if 40 < len(sentence) < 160 and SENTENCE.fullmatch(sentence):
                        found.add(sentence)
    ordered = sorted(found)
    random.Random(0).shuffle(ordered)
    if len(ordered) < skip + count:
        raise ValueError(f"the installed packages have {len(ordered)} sentences, not {skip + count}; ask for fewer")
    return ordered[skip : skip + count]


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    try:
        print("\n".join(sentences(*map(int, sys.argv[1:]))))
    except ValueError as error:
        sys.exit(f"sentences.py: {error}")
