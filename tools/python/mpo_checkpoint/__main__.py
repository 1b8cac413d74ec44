"""The command line: ``python -m mpo_checkpoint calibrate MODEL TEXT -o STATS.safetensors``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(prog="mpo_checkpoint")
    commands = parser.add_subparsers(dest="command", required=True)
    calibrate = commands.add_parser("calibrate", help="run a text through a model and write statistics of its layers")
    calibrate.add_argument("model", type=Path, help="a Hugging Face model folder")
    calibrate.add_argument("text", type=Path, help="a text file, one sample a line")
    calibrate.add_argument("-o", "--output", type=Path, required=True, help="the statistics file to write")
    calibrate.add_argument("--projections", type=int, default=4, help="random projections of each output (default: 4)")
    calibrate.add_argument("--batch-size", type=int, default=16, help="samples at a time (default: 16)")
    calibrate.add_argument("--max-length", type=int, default=128, help="tokens of a sample at most (default: 128)")
    calibrate.add_argument("--seed", type=int, default=0, help="of the projections (default: 0)")
    options = parser.parse_args()

    for path in (options.model, options.text):
        if not path.exists():
            sys.exit(f"mpo_checkpoint: {path}: no such file or folder")
    samples = [line.strip() for line in options.text.read_text("utf-8").splitlines() if line.strip()]
    if not samples:
        sys.exit(f"mpo_checkpoint: {options.text}: has no line of text; give it one sample a line")

    from .huggingface import calibrate_folder

    statistics = calibrate_folder(
        options.model,
        samples,
        projections=options.projections,
        batch_size=options.batch_size,
        max_length=options.max_length,
        seed=options.seed,
    )
    statistics.save(options.output)
    print(
        f"{options.output}: {len(statistics.matrices)} matrices, {statistics.samples} samples, "
        f"{statistics.tokens} tokens"
    )


main()
